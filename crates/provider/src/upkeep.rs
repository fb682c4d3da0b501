//! What a provider does without being asked: it looks whether its disk still works, lets claims expire, gives space
//! back, reads through everything for rot, and writes down how it is.
//!
//! Each of these is a step that does a bounded amount of work; the loops around them only keep the pace, and end when
//! the daemon does.

use crate::gate::{Gate, Turn};
use crate::metrics::Metrics;
use crate::service::now;
use seedbank_store::{CollectError, Collected, ProbeError, ScrubCursor, ScrubReport, Store};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

/// Often enough that clients seldom learn of a bad disk first; each costs one small sync.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// A busy disk takes seconds for a sync, a dead one takes for ever.
const PROBE_LATE: Duration = Duration::from_secs(10);
/// A claim that ended gives no right any more; only its space waits for this, and each time walks the whole index.
const COLLECT_EVERY: Duration = Duration::from_secs(30);
/// Between two runs when there is more to do at once.
const COLLECT_PAUSE: Duration = Duration::from_secs(1);
/// Records that one run moves at most: a second of a slow disk.
const COLLECT_BYTES: u64 = 64 << 20;
/// What one step of a scrub reads at least.
const SCRUB_STEP_BYTES: u64 = 4 << 20;
/// How often a scrub writes down how far it is: what is read twice after a restart is no more than this.
const CURSOR_EVERY: Duration = Duration::from_secs(60);
/// Between two rounds, so that a small store is not read all day.
const SCRUB_PAUSE: Duration = Duration::from_secs(600);

/// Everything that the background work needs.
#[derive(Clone)]
pub(crate) struct Upkeep {
    pub(crate) store: Arc<Store>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) metrics: Arc<Metrics>,
    /// Somebody was refused for want of room.
    pub(crate) room_wanted: Arc<Notify>,
    /// In bytes per second; 0 for never.
    pub(crate) scrub_rate: u64,
}

/// Where a scrub writes down how far it is. Losing it costs a round that begins anew, and nothing else.
#[derive(Debug, Clone)]
pub(crate) struct CursorFile(PathBuf);

impl CursorFile {
    pub(crate) fn in_folder(dir: &Path) -> CursorFile {
        CursorFile(dir.join("scrub.cursor"))
    }

    fn load(&self) -> ScrubCursor {
        let text = std::fs::read_to_string(&self.0);
        text.ok().and_then(|text| text.trim_end().parse().ok()).unwrap_or_default()
    }

    fn save(&self, cursor: ScrubCursor) {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written =
            options.open(&self.0).and_then(|mut file| file.write_all(format!("{cursor}\n").as_bytes()));
        if let Err(error) = written {
            tracing::debug!(%error, "can't write down how far the scrub is");
        }
    }
}

/// Tells background work when to end.
pub(crate) type Stop = watch::Receiver<bool>;

/// Waits for the end; a sender that is gone means the same.
pub(crate) async fn stopped(stop: &mut Stop) {
    let _gone = stop.wait_for(|stop| *stop).await;
}

/// Whether to go on after a pause.
async fn pause(stop: &mut Stop, length: Duration) -> bool {
    timeout(length, stopped(stop)).await.is_err()
}

impl Upkeep {
    /// Probes the disk again and again. While a probe hangs this does not end by itself: whoever stops it bounds that.
    pub(crate) async fn watch_disk(self, mut stop: Stop) {
        loop {
            let store = Arc::clone(&self.store);
            self.judge_probe(spawn_blocking(move || store.probe()), PROBE_LATE).await;
            if !pause(&mut stop, PROBE_EVERY).await {
                return;
            }
        }
    }

    /// Waits for a probe, closes the gate while it is late, and opens it when it comes back well.
    async fn judge_probe(&self, mut probe: tokio::task::JoinHandle<Result<(), ProbeError>>, late: Duration) {
        let outcome = match timeout(late, &mut probe).await {
            Ok(outcome) => outcome,
            Err(_late) => {
                self.metrics.probes_failed.inc();
                let reason = format!("a disk probe takes longer than {} s", late.as_secs());
                if self.gate.close(&reason) == Turn::Turned {
                    error!(reason, "changes refused: disk hangs");
                }
                probe.await
            }
        };
        match outcome {
            Ok(Ok(())) => {
                if self.gate.open() == Turn::Turned {
                    info!("changes taken again: disk answers");
                }
            }
            Ok(Err(ProbeError::Full)) => {
                // Nothing is wrong with it: the store refuses what has no room, and takes releases.
                if self.gate.open() == Turn::Turned {
                    info!("changes taken again: disk answers");
                }
                warn!("disk full");
            }
            Ok(Err(failure @ (ProbeError::Marker | ProbeError::Disk(_)))) => {
                self.metrics.probes_failed.inc();
                error!(error = &failure as &dyn std::error::Error, "disk probe failed");
            }
            Err(failure) => error!(error = %failure, "disk probe panicked"),
        }
    }

    /// Lets claims expire and gives space back, again and again.
    pub(crate) async fn collect(self, mut stop: Stop) {
        loop {
            let store = Arc::clone(&self.store);
            let more = match spawn_blocking(move || collect_step(&store)).await {
                Ok(more) => more,
                Err(failure) => {
                    error!(error = %failure, "collection panicked");
                    false
                }
            };
            if !pause(&mut stop, COLLECT_PAUSE).await {
                return;
            }
            if more {
                continue;
            }
            tokio::select! {
                () = stopped(&mut stop) => return,
                () = self.room_wanted.notified() => {}
                () = sleep(COLLECT_EVERY) => {}
            }
        }
    }

    /// Reads through everything, round after round, no faster than the operator allows.
    pub(crate) async fn scrub(self, file: CursorFile, mut stop: Stop) {
        if self.scrub_rate == 0 {
            return stopped(&mut stop).await;
        }
        let mut cursor = file.load();
        let mut saved = Instant::now();
        loop {
            let (store, file) = (Arc::clone(&self.store), file.clone());
            let due = saved.elapsed() >= CURSOR_EVERY;
            let step = spawn_blocking(move || {
                let report = store.scrub_step(&mut cursor, SCRUB_STEP_BYTES);
                if due || report.finished {
                    file.save(cursor);
                }
                (cursor, report)
            });
            if due {
                saved = Instant::now();
            }
            let wait = match step.await {
                Ok((next, report)) => {
                    cursor = next;
                    self.note_scrub(&report);
                    scrub_wait(&report, self.scrub_rate)
                }
                Err(failure) => {
                    error!(error = %failure, "scrub panicked");
                    SCRUB_PAUSE
                }
            };
            if !pause(&mut stop, wait).await {
                return;
            }
        }
    }

    fn note_scrub(&self, report: &ScrubReport) {
        self.metrics.scrubbed_fragments.inc_by(report.checked);
        self.metrics.scrubbed_bytes.inc_by(report.bytes);
        let found = report.rotten.len() + report.rotten_heads.len();
        self.metrics.rot_found.inc_by(u64::try_from(found).unwrap_or(u64::MAX));
        for fragment in &report.rotten {
            warn!(%fragment, "scrub: fragment is rotten");
        }
        for dataset in &report.rotten_heads {
            warn!(%dataset, "scrub: head is rotten");
        }
        if report.repaired > 0 || report.skipped > 0 {
            warn!(repaired = report.repaired, skipped = report.skipped, "scrub: records were damaged");
        }
        if report.finished {
            self.metrics.scrub_rounds.inc();
            info!(checked_total = self.metrics.scrubbed_fragments.get(), "scrub round done");
        }
    }
}

/// How long to wait after a step.
fn scrub_wait(report: &ScrubReport, rate: u64) -> Duration {
    let millis = report.bytes.saturating_mul(1_000) / rate.max(1);
    let paced = Duration::from_millis(millis);
    if report.finished { paced.max(SCRUB_PAUSE) } else { paced }
}

/// Lets claims expire and collects once; says whether there is more to do at once.
fn collect_step(store: &Store) -> bool {
    let now = now();
    match store.expire(now) {
        Ok(0) => {}
        Ok(claims) => info!(claims, "claims expired"),
        // A store that can't write says so itself, and once.
        Err(failure) => tracing::debug!(error = %failure, "claims can't expire"),
    }
    match store.collect(now, COLLECT_BYTES) {
        Ok(collected) => {
            if collected != Collected::default() {
                info!(
                    fragments = collected.fragments,
                    freed_bytes = collected.freed_bytes,
                    moved_bytes = collected.moved_bytes,
                    volumes = collected.volumes,
                    "space collected"
                );
            }
            collected.more
        }
        Err(CollectError::Full) => {
            warn!("can't collect: disk full");
            false
        }
        Err(failure @ CollectError::ReadOnly { .. }) => {
            tracing::debug!(error = %failure, "can't collect");
            false
        }
        Err(failure @ CollectError::Disk(_)) => {
            error!(error = &failure as &dyn std::error::Error, "can't collect");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CursorFile, SCRUB_PAUSE, Upkeep, collect_step, scrub_wait};
    use crate::gate::Gate;
    use crate::metrics::Metrics;
    use seedbank_formats::{Asked, FragmentId, PublicKey, Timestamp};
    use seedbank_store::testing::MemDisk;
    use seedbank_store::{
        Access, Config, NewClaim, ProbeError, PutStart, ScrubCursor, ScrubReport, Store, StoreId,
    };
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::sync::{Notify, oneshot};

    fn store() -> Arc<Store> {
        let (disk, id) = (MemDisk::default(), StoreId([1; 32]));
        Store::create(&disk, id).unwrap();
        let mut config = Config::new(id, 1 << 30);
        config.quotas.others_bytes = 1 << 20;
        Arc::new(Store::open(Arc::new(disk), config).unwrap())
    }

    fn upkeep() -> Upkeep {
        Upkeep {
            store: store(),
            gate: Arc::new(Gate::default()),
            metrics: Arc::new(Metrics::new()),
            room_wanted: Arc::new(Notify::new()),
            scrub_rate: 1,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn gate_is_closed_while_a_probe_hangs_and_opens_when_it_comes_back() {
        let upkeep = upkeep();
        for comes_back in [Ok(()), Err(ProbeError::Full)] {
            let (finish, finished) = oneshot::channel::<()>();
            let probe = tokio::spawn(async {
                let _ = finished.await;
                comes_back
            });
            let judge = upkeep.judge_probe(probe, Duration::from_secs(10));
            let look = async {
                assert_eq!(upkeep.gate.closed_because(&upkeep.store), None);
                tokio::time::sleep(Duration::from_secs(11)).await;
                assert!(upkeep.gate.closed_because(&upkeep.store).unwrap().contains("10 s"));
                assert!(upkeep.gate.pass(&upkeep.store).is_err());
                finish.send(()).unwrap();
            };
            tokio::join!(judge, look);
            assert_eq!(upkeep.gate.closed_because(&upkeep.store), None);
        }
        assert_eq!(upkeep.metrics.probes_failed.get(), 2);
    }

    #[test]
    fn scrub_keeps_its_pace_and_rests_between_rounds() {
        let report = |bytes, finished| ScrubReport { bytes, finished, ..ScrubReport::default() };
        assert_eq!(scrub_wait(&report(8_000_000, false), 4_000_000), Duration::from_secs(2));
        assert_eq!(scrub_wait(&report(0, true), 4_000_000), SCRUB_PAUSE);
        assert_eq!(scrub_wait(&report(4_000_000_000, true), 4_000_000), Duration::from_secs(1_000));
    }

    #[test]
    fn scrub_goes_on_where_it_was_and_begins_anew_when_nobody_knows() {
        let folder = tempfile::tempdir().unwrap();
        let file = CursorFile::in_folder(folder.path());
        assert_eq!(file.load(), ScrubCursor::default());
        let cursor: ScrubCursor = format!("fragment {}", FragmentId::of(b"x")).parse().unwrap();
        file.save(cursor);
        assert_eq!(file.load(), cursor);
        std::fs::write(&file.0, "fragment zz\n").unwrap();
        assert_eq!(file.load(), ScrubCursor::default());
    }

    #[test]
    fn claims_that_ended_are_collected() {
        let store = store();
        let (id, client) = (FragmentId::of(b"bytes"), PublicKey([2; 32]));
        // Long ago, by the clock of the machine that runs this.
        let then = Timestamp(1_000_000);
        let claim = NewClaim { client, until: then.plus_seconds(60), access: Access::Owner, asked: Asked(0) };
        let PutStart::Receive(mut put) = store.begin_put(id, 5, claim, then).unwrap() else {
            panic!("a new fragment must be sent");
        };
        put.write(b"bytes").unwrap();
        put.finish(then).unwrap();
        assert!(store.fragment(&id).is_some());
        assert!(!collect_step(&store));
        assert!(store.fragment(&id).is_none());
    }
}
