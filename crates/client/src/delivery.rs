//! Delivers the bytes of many files in order, reading ahead, in bounded memory.
//!
//! The planning side walks entries and chunks and joins neighbours into runs of one request each; the delivering side is
//! one blocking thread that takes finished runs in order and hands chunk after chunk to a sink. Between them are a
//! bounded channel and a budget of bytes, so the fastest network can't outrun the slowest disk. What is one short run
//! altogether needs none of that: it is read and handed out by the task that asked for it.
//!
//! Copies of a byte on its way from the socket to the sink, in this process: out of the kernel, out of the TLS layer,
//! into the answer's body, and decrypted into a buffer that is used again, from which the sink takes it.

use crate::progress::Progress;
use crate::reader::{Plains, RUN_BYTES_MAX, ReadError, Reader};
use crate::walk::{LocatedChunk, LocatedEntry};
use seedbank_formats::codec::DecodeError;
use seedbank_formats::path::TreePath;
use seedbank_formats::place::{ChunkRef, Place};
use seedbank_formats::seal::SEAL_OVERHEAD_BYTES;
use seedbank_formats::segment::SEGMENT_ITEMS_MAX;
use seedbank_formats::tree::Entry;
use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

/// Plaintext that is read ahead, with what is to be done with it: enough for a gigabit over 200 ms, and small beside
/// what a training job has.
const AHEAD_BYTES_MAX: u64 = 48 * 1024 * 1024;

/// Runs read ahead, when they are short.
const AHEAD_RUNS_MAX: usize = 64;

/// Memory of one run. Plaintext makes up half of it at the most: the rest is for files that are empty and for chunks that
/// repeat themselves, which cost steps only.
const RUN_MEMORY_MAX: u64 = 2 * RUN_BYTES_MAX;

/// Memory of a step, and of the beginning of a file beside its path: a tree's entry has up to 16 chunks.
const STEP_BYTES: u64 = 32;
const BEGIN_BYTES: u64 = 1024;

/// A delivery up to this length, in one run, is made without a thread of its own: a sink takes as much in a moment.
const SHORT_BYTES_MAX: u64 = 1024 * 1024;

/// What takes the bytes. Called from one thread or task, in the order of the tree.
pub(crate) trait Sink: Send + 'static {
    /// Why it can't go on.
    type Error: Send + 'static;

    /// A file begins; the sink has its first `have` bytes.
    fn begin(&mut self, path: &TreePath, entry: &Entry, have: u64) -> Result<(), Self::Error>;
    /// The file's next bytes.
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
    /// The file is complete.
    fn end(&mut self) -> Result<(), Self::Error>;
}

/// Why a delivery stopped.
#[derive(Debug)]
pub(crate) enum DeliveryError<E> {
    Read(ReadError),
    Sink(E),
}

impl<E> From<ReadError> for DeliveryError<E> {
    fn from(error: ReadError) -> DeliveryError<E> {
        DeliveryError::Read(error)
    }
}

enum Step {
    Begin(Box<(TreePath, Entry, u64)>),
    /// The plaintext at this position of the run.
    Chunk(usize),
    End,
}

struct Run {
    read: Option<Read>,
    steps: Vec<Step>,
    _budget: OwnedSemaphorePermit,
}

/// Chunks on their way. Dropping it ends the requests.
struct Read(JoinHandle<Result<Plains, ReadError>>);

impl Read {
    /// Asks for a run's chunks; `None` when it has none.
    fn start(reader: &Arc<Reader>, open: &Open) -> Option<Read> {
        let first = open.first?;
        let (reader, chunks) = (Arc::clone(reader), open.chunks.clone());
        Some(Read(tokio::spawn(async move { reader.chunks(first, &chunks).await })))
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The run that is being put together.
#[derive(Default)]
struct Open {
    first: Option<Place>,
    chunks: Vec<ChunkRef>,
    /// Bytes of the chunks, and the most that they can have as they are sealed.
    plain: u64,
    sealed: u64,
    steps: Vec<Step>,
    step_bytes: u64,
}

impl Open {
    /// Where a chunk at `place` already is in this run, because a file repeats it.
    fn position(&self, chunk: &ChunkRef, place: Place) -> Option<usize> {
        let first = self.first.filter(|first| first.segment == place.segment)?;
        let position = usize::try_from(place.index.checked_sub(first.index)?).ok()?;
        (self.chunks.get(position) == Some(chunk)).then_some(position)
    }

    /// Whether a chunk at `place` may join.
    fn takes(&self, chunk: &ChunkRef, place: Place) -> bool {
        let Some(first) = self.first else { return true };
        let next = u32::try_from(self.chunks.len()).ok().and_then(|count| first.index.checked_add(count));
        first.segment == place.segment
            && next == Some(place.index)
            && self.sealed + sealed_max(chunk) <= RUN_BYTES_MAX
            && self.chunks.len() < SEGMENT_ITEMS_MAX
    }

    fn step(&mut self, step: Step) {
        self.step_bytes += match &step {
            Step::Begin(begin) => STEP_BYTES + BEGIN_BYTES + begin.0.as_str().len() as u64,
            Step::Chunk(_) | Step::End => STEP_BYTES,
        };
        self.steps.push(step);
    }

    fn memory(&self) -> u64 {
        self.plain + self.step_bytes
    }
}

fn sealed_max(chunk: &ChunkRef) -> u64 {
    u64::from(chunk.len) + SEAL_OVERHEAD_BYTES as u64
}

/// What a stretch of a file is to its sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stretch {
    /// What it does not have yet. It begins with a chunk.
    Rest,
    /// All that is wanted. It may begin within a chunk.
    Range,
}

/// The planning side of a delivery. Dropping it stops the delivering side after the call that it is in.
pub(crate) struct Delivery<S: Sink> {
    reader: Arc<Reader>,
    open: Open,
    budget: Arc<Semaphore>,
    progress: Arc<dyn Progress>,
    side: Side<S>,
}

/// The delivering side.
enum Side<S: Sink> {
    /// All of it is short so far: nothing is asked for before the end is known.
    Short {
        sink: S,
        runs: Vec<Open>,
        bytes: u64,
    },
    Thread(Thread<S>),
    /// It has ended.
    Gone,
}

struct Thread<S: Sink> {
    runs: mpsc::Sender<Run>,
    /// Never sends: that it is gone tells the thread to stop.
    alive: oneshot::Sender<Infallible>,
    ended: JoinHandle<Result<(), DeliveryError<S::Error>>>,
}

impl<S: Sink> Thread<S> {
    fn start(sink: S, progress: Arc<dyn Progress>) -> Thread<S> {
        let (runs, incoming) = mpsc::channel::<Run>(AHEAD_RUNS_MAX);
        let (alive, stopped) = oneshot::channel();
        let runtime = Handle::current();
        let ended =
            tokio::task::spawn_blocking(move || deliver(&runtime, incoming, stopped, sink, &*progress));
        Thread { runs, alive, ended }
    }
}

impl<S: Sink> Delivery<S> {
    /// Nothing is asked for yet.
    pub(crate) fn new(reader: &Arc<Reader>, sink: S, progress: Arc<dyn Progress>) -> Delivery<S> {
        let budget = usize::try_from(AHEAD_BYTES_MAX / 1024).expect("a small number");
        Delivery {
            reader: Arc::clone(reader),
            open: Open::default(),
            budget: Arc::new(Semaphore::new(budget)),
            progress,
            side: Side::Short { sink, runs: Vec::new(), bytes: 0 },
        }
    }

    /// Delivers a file from byte `have` on, which is a chunk's start.
    pub(crate) async fn file(&mut self, located: &LocatedEntry, have: u64) -> Result<(), ReadError> {
        self.stretch(located, have..located.entry.size(), Stretch::Rest).await
    }

    /// Delivers the chunks that cover `range` of a file, which is not empty and ends within it. The sink is told as
    /// `have` how many bytes of the first chunk come before the range.
    pub(crate) async fn range(&mut self, located: &LocatedEntry, range: Range<u64>) -> Result<(), ReadError> {
        self.stretch(located, range, Stretch::Range).await
    }

    async fn stretch(
        &mut self,
        located: &LocatedEntry,
        range: Range<u64>,
        stretch: Stretch,
    ) -> Result<(), ReadError> {
        let mut chunks = located.chunks(&self.reader, range.clone());
        let mut next = if range.is_empty() { None } else { chunks.next().await? };
        let before = range.start - next.map_or(range.start, |first| first.start.min(range.start));
        let have = match stretch {
            Stretch::Rest if before > 0 => return Err(incomplete()),
            Stretch::Rest => range.start,
            Stretch::Range => before,
        };
        self.open.step(Step::Begin(Box::new((located.path.clone(), located.entry.clone(), have))));
        let mut reached = range.start;
        while reached < range.end {
            let LocatedChunk { chunk, place, start } = next.ok_or_else(incomplete)?;
            reached = start.saturating_add(u64::from(chunk.len));
            self.chunk(chunk, place).await?;
            next = if reached < range.end { chunks.next().await? } else { None };
        }
        self.open.step(Step::End);
        self.flush_if_full().await
    }

    /// Delivers one chunk of the file that was begun.
    async fn chunk(&mut self, chunk: ChunkRef, place: Place) -> Result<(), ReadError> {
        if let Some(position) = self.open.position(&chunk, place) {
            self.open.step(Step::Chunk(position));
            return self.flush_if_full().await;
        }
        if !self.open.takes(&chunk, place) {
            self.flush().await?;
        }
        self.open.first.get_or_insert(place);
        self.open.step(Step::Chunk(self.open.chunks.len()));
        self.open.plain += u64::from(chunk.len);
        self.open.sealed += sealed_max(&chunk);
        self.open.chunks.push(chunk);
        self.flush_if_full().await
    }

    /// Steps without bytes of their own must not pile up either.
    async fn flush_if_full(&mut self) -> Result<(), ReadError> {
        if self.open.memory() >= RUN_MEMORY_MAX { self.flush().await } else { Ok(()) }
    }

    /// Closes the open run.
    async fn flush(&mut self) -> Result<(), ReadError> {
        let open = std::mem::take(&mut self.open);
        let (sink, mut short) = match std::mem::replace(&mut self.side, Side::Gone) {
            Side::Short { sink, mut runs, bytes } => {
                let bytes = bytes + open.memory();
                runs.push(open);
                if bytes <= SHORT_BYTES_MAX {
                    self.side = Side::Short { sink, runs, bytes };
                    return Ok(());
                }
                (sink, runs)
            }
            Side::Thread(thread) => {
                self.side = Side::Thread(thread);
                return self.send(open).await;
            }
            Side::Gone => return Err(ReadError::Stopped),
        };
        self.side = Side::Thread(Thread::start(sink, Arc::clone(&self.progress)));
        for open in short.drain(..) {
            self.send(open).await?;
        }
        Ok(())
    }

    /// Asks for a run's bytes, as soon as there is room for them, and tells the thread of it.
    async fn send(&mut self, open: Open) -> Result<(), ReadError> {
        let kib = u32::try_from(open.memory().div_ceil(1024)).expect("a run has a few MiB").max(1);
        let permit = Arc::clone(&self.budget).acquire_many_owned(kib).await;
        let budget = permit.map_err(|_closed| ReadError::Stopped)?;
        let run = Run { read: Read::start(&self.reader, &open), steps: open.steps, _budget: budget };
        match &self.side {
            // The thread ends early only with an error, which `finish` tells.
            Side::Thread(thread) => thread.runs.send(run).await.map_err(|_ended| ReadError::Stopped),
            Side::Short { .. } | Side::Gone => Err(ReadError::Stopped),
        }
    }

    /// Waits until everything is delivered. `planned` is how the planning went: the delivering side's error explains it.
    pub(crate) async fn finish(
        mut self,
        planned: Result<(), ReadError>,
    ) -> Result<(), DeliveryError<S::Error>> {
        let planned = match planned {
            Ok(()) => self.flush().await,
            Err(error) => Err(error),
        };
        match self.side {
            Side::Short { mut sink, runs, .. } => {
                planned?;
                deliver_short(&self.reader, runs, &mut sink, &*self.progress).await
            }
            Side::Thread(Thread { runs, alive, ended }) => {
                drop(runs);
                let delivered = ended.await.unwrap_or(Err(DeliveryError::Read(ReadError::Stopped)));
                drop(alive);
                delivered.and(planned.map_err(DeliveryError::Read))
            }
            Side::Gone => Err(planned.err().unwrap_or(ReadError::Stopped).into()),
        }
    }
}

fn incomplete() -> ReadError {
    DecodeError::Invalid { format: "tree", reason: "a file's chunks end before the file does" }.into()
}

/// Reads short runs, all at once, and hands them out.
async fn deliver_short<S: Sink>(
    reader: &Arc<Reader>,
    mut runs: Vec<Open>,
    sink: &mut S,
    progress: &dyn Progress,
) -> Result<(), DeliveryError<S::Error>> {
    let Some(last) = runs.pop() else { return Ok(()) };
    let others: Vec<(Vec<Step>, Option<Read>)> = runs
        .into_iter()
        .map(|open| {
            let read = Read::start(reader, &open);
            (open.steps, read)
        })
        .collect();
    // The only one as a rule: this task reads it itself.
    let last_read = match last.first {
        Some(first) => Some(reader.chunks(first, &last.chunks).await?),
        None => None,
    };
    for (steps, read) in others {
        let plains = match read {
            Some(mut read) => Some((&mut read.0).await.unwrap_or(Err(ReadError::Stopped))?),
            None => None,
        };
        steps.into_iter().try_for_each(|step| take(step, plains.as_ref(), sink, progress))?;
    }
    last.steps.into_iter().try_for_each(|step| take(step, last_read.as_ref(), sink, progress))
}

/// The delivering thread: hands out runs in order until there are no more, something fails or nobody wants them.
fn deliver<S: Sink>(
    runtime: &Handle,
    mut incoming: mpsc::Receiver<Run>,
    mut stopped: oneshot::Receiver<Infallible>,
    mut sink: S,
    progress: &dyn Progress,
) -> Result<(), DeliveryError<S::Error>> {
    while let Some(mut run) = incoming.blocking_recv() {
        let plains = match &mut run.read {
            None => None,
            Some(read) => Some(runtime.block_on(async {
                tokio::select! {
                    biased;
                    Err(_gone) = &mut stopped => Err(ReadError::Stopped),
                    read = &mut read.0 => read.unwrap_or(Err(ReadError::Stopped)),
                }
            })?),
        };
        for step in std::mem::take(&mut run.steps) {
            if let Err(TryRecvError::Closed) = stopped.try_recv() {
                return Err(ReadError::Stopped.into());
            }
            take(step, plains.as_ref(), &mut sink, progress)?;
        }
    }
    Ok(())
}

/// One step of a run, whose chunks are `plains`.
fn take<S: Sink>(
    step: Step,
    plains: Option<&Plains>,
    sink: &mut S,
    progress: &dyn Progress,
) -> Result<(), DeliveryError<S::Error>> {
    let done = match step {
        Step::Begin(begin) => sink.begin(&begin.0, &begin.1, begin.2),
        Step::Chunk(position) => {
            let plain = plains.expect("a run with steps for chunks has chunks").get(position);
            let taken = sink.bytes(plain);
            progress.advance(0, plain.len() as u64);
            taken
        }
        Step::End => {
            progress.advance(1, 0);
            sink.end()
        }
    };
    done.map_err(DeliveryError::Sink)
}
