//! A relay between a client and a provider that makes the network worse: it delays, throttles, stalls and cuts.
//!
//! Kernels without netem can't delay packets, and no firewall cuts a connection in the middle of a body; a relay of our
//! own can, on any machine and without rights. What is drawn (where a connection is cut) comes from its seed. It
//! carries bytes in order and whole: loss and reordering of packets are TCP's business, and are tested in network
//! namespaces.

use crate::ByteStream;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes carried at once.
const PIECE_BYTES: usize = 16 * 1024;

/// Pieces on their way in one direction of one connection: 1 MiB, as much as a socket's own buffers hold.
const PIECES_MAX: usize = 64;

/// How a relay treats the bytes of all its connections, old and new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weather {
    /// Passes them on at once.
    Calm,
    /// Passes them on so much later, in each direction.
    Delay(Duration),
    /// Passes on so many bytes a second, in each direction of each connection.
    Throttle {
        /// More than zero.
        bytes_per_s: u64,
    },
    /// Keeps connections open and passes nothing on.
    Stall,
    /// Ends each connection once it has carried a number of bytes that is drawn from this range.
    Cut(Range<u64>),
    /// Ends each connection at once.
    Refuse,
}

/// A relay that listens on a port of the system's choice. Gone, with its connections, when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    weather: Weather,
    draw: ByteStream,
    is_closed: bool,
    next: u64,
    /// Both ends of each connection, to end them.
    open: HashMap<u64, Connection>,
    cuts: u64,
    carried: u64,
}

#[derive(Debug)]
struct Connection {
    ends: [TcpStream; 2],
    carried: u64,
    /// After how many bytes it is cut, once that was drawn.
    cut_at: Option<u64>,
}

impl Relay {
    /// Starts one in front of `target`.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(target: SocketAddr, seed: u64) -> io::Result<Relay> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let state = State {
            weather: Weather::Calm,
            draw: ByteStream::new(seed),
            is_closed: false,
            next: 0,
            open: HashMap::new(),
            cuts: 0,
            carried: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        let acceptor = std::thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || accept(&accepting, &listener, target))?;
        Ok(Relay { address, shared, acceptor: Some(acceptor) })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes how bytes are treated from now on, those on their way included.
    pub fn set(&self, weather: Weather) {
        let mut state = self.shared.lock();
        for connection in state.open.values_mut() {
            (connection.carried, connection.cut_at) = (0, None);
        }
        state.weather = weather;
        self.shared.changed.notify_all();
    }

    /// Bytes passed on so far, in both directions.
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.shared.lock().carried
    }

    /// Connections that it ended.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.shared.lock().cuts
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_closed = true;
        state.open.values().for_each(Connection::end);
        self.shared.changed.notify_all();
        drop(state);
        // Wakes the acceptor, which then sees that it is over.
        let _woken = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ended = acceptor.join();
        }
    }
}

impl Connection {
    fn end(&self) {
        for end in &self.ends {
            // Its peer may have ended it before.
            let _ended = end.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the state")
    }

    fn enter(&self, client: &TcpStream, provider: &TcpStream) -> io::Result<u64> {
        let ends = [client.try_clone()?, provider.try_clone()?];
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        state.open.insert(id, Connection { ends, carried: 0, cut_at: None });
        Ok(id)
    }

    /// Ends a connection that is known yet.
    fn leave(&self, id: u64) {
        if let Some(connection) = self.lock().open.remove(&id) {
            connection.end();
        }
    }

    /// Waits until this many bytes that arrived then may be passed on. Says how many of them, if the connection is
    /// to be cut within them.
    fn may_pass(&self, id: u64, arrived: Instant, bytes: usize, lane_free: &mut Instant) -> Passing {
        let mut state = self.lock();
        loop {
            let State { weather, draw, open, is_closed, .. } = &mut *state;
            let Some(connection) = open.get_mut(&id).filter(|_| !*is_closed) else { return Passing::Over };
            let until = match weather {
                Weather::Calm => None,
                Weather::Delay(time) => Some(arrived + *time),
                Weather::Throttle { bytes_per_s } => {
                    let start = (*lane_free).max(arrived);
                    let share = u32::try_from(bytes).expect("a piece is small");
                    let rate = u32::try_from((*bytes_per_s).max(1)).unwrap_or(u32::MAX);
                    let due = start + Duration::from_secs(1) * share / rate;
                    if due <= Instant::now() {
                        *lane_free = due;
                    }
                    Some(due)
                }
                Weather::Stall => {
                    state = self.changed.wait(state).expect("nothing panics while it holds the state");
                    continue;
                }
                Weather::Cut(range) => {
                    let at = *connection
                        .cut_at
                        .get_or_insert_with(|| range.start + draw.below((range.end - range.start).max(1)));
                    let left = usize::try_from(at.saturating_sub(connection.carried)).unwrap_or(usize::MAX);
                    if left < bytes {
                        state.cuts += 1;
                        state.carried += left as u64;
                        return Passing::Cut { after: left };
                    }
                    None
                }
                Weather::Refuse => {
                    state.cuts += 1;
                    return Passing::Cut { after: 0 };
                }
            };
            match until.and_then(|until| until.checked_duration_since(Instant::now())) {
                Some(wait) if !wait.is_zero() => {
                    let waited = self.changed.wait_timeout(state, wait);
                    state = waited.expect("nothing panics while it holds the state").0;
                }
                _ => {
                    connection.carried += bytes as u64;
                    state.carried += bytes as u64;
                    return Passing::All;
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passing {
    All,
    Cut { after: usize },
    Over,
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener, target: SocketAddr) {
    for client in listener.incoming() {
        if shared.lock().is_closed {
            return;
        }
        // A connection that can't be made is one that its client sees end.
        let _unconnected = client.and_then(|client| connect(shared, client, target));
    }
}

/// Connects a client with the provider: a reading and a writing thread for each direction.
fn connect(shared: &Arc<Shared>, client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let provider = TcpStream::connect(target)?;
    for end in [&client, &provider] {
        end.set_nodelay(true)?;
    }
    let id = shared.enter(&client, &provider)?;
    for (from, to) in [(client.try_clone()?, provider.try_clone()?), (provider, client)] {
        let (pieces, waiting) = sync_channel(PIECES_MAX);
        let shared = Arc::clone(shared);
        std::thread::Builder::new().spawn(move || take(from, &pieces))?;
        std::thread::Builder::new().spawn(move || give(&shared, id, &waiting, to))?;
    }
    Ok(())
}

fn take(mut from: TcpStream, pieces: &SyncSender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(bytes @ 1..) = from.read(&mut buffer) {
        if pieces.send((Instant::now(), buffer[..bytes].to_vec())).is_err() {
            return;
        }
    }
}

fn give(shared: &Shared, id: u64, waiting: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    let mut lane_free = Instant::now();
    for (arrived, piece) in waiting {
        let passed = match shared.may_pass(id, arrived, piece.len(), &mut lane_free) {
            Passing::All => to.write_all(&piece),
            Passing::Cut { after } => {
                // What came before the cut arrives, if the other end still listens.
                let _heard = to.write_all(&piece[..after]);
                return shared.leave(id);
            }
            Passing::Over => return,
        };
        if passed.is_err() {
            return shared.leave(id);
        }
    }
    // One end has said all. What the other still says is of no use to HTTP over TLS, so both are ended.
    shared.leave(id);
}

#[cfg(test)]
mod tests {
    use super::{Relay, Weather};
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    /// A relay in front of a server that sends back what it gets.
    fn relay_before_echo(seed: u64) -> Relay {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let target = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
                        if stream.write_all(&buffer[..bytes]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Relay::start(target, seed).unwrap()
    }

    fn echoed(stream: &mut TcpStream, said: &[u8]) -> std::io::Result<()> {
        stream.write_all(said)?;
        let mut heard = vec![0; said.len()];
        stream.read_exact(&mut heard)?;
        assert_eq!(heard, said);
        Ok(())
    }

    #[test]
    fn bytes_come_through_whole_and_are_counted() {
        let relay = relay_before_echo(1);
        let mut stream = TcpStream::connect(relay.address()).unwrap();
        let said = crate::ByteStream::bytes(1, 300_000);
        std::thread::scope(|scope| {
            let (mut writer, said) = (stream.try_clone().unwrap(), &said);
            scope.spawn(move || writer.write_all(said).unwrap());
            let mut heard = vec![0; said.len()];
            stream.read_exact(&mut heard).unwrap();
            assert_eq!(heard.len(), said.len());
            assert!(heard == *said);
        });
        assert_eq!(relay.carried(), 600_000);
    }

    #[test]
    fn delay_and_throttle_take_their_time() {
        let relay = relay_before_echo(1);
        let mut stream = TcpStream::connect(relay.address()).unwrap();
        echoed(&mut stream, b"quick").unwrap();
        relay.set(Weather::Delay(Duration::from_millis(50)));
        let started = Instant::now();
        echoed(&mut stream, b"slow").unwrap();
        assert!(started.elapsed() >= Duration::from_millis(100), "there and back: {:?}", started.elapsed());
        relay.set(Weather::Throttle { bytes_per_s: 40_000 });
        let started = Instant::now();
        echoed(&mut stream, &[7; 4000]).unwrap();
        assert!(started.elapsed() >= Duration::from_millis(100), "there or back: {:?}", started.elapsed());
    }

    #[test]
    fn stalled_bytes_arrive_when_the_stall_ends() {
        let relay = relay_before_echo(1);
        let mut stream = TcpStream::connect(relay.address()).unwrap();
        echoed(&mut stream, b"before").unwrap();
        relay.set(Weather::Stall);
        stream.write_all(b"during").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let error = stream.read(&mut [0; 6]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        relay.set(Weather::Calm);
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut heard = [0; 6];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"during");
    }

    #[test]
    fn connections_are_cut_where_the_seed_says_and_anew_when_they_come_again() {
        let cut_after = |seed: u64| -> Vec<usize> {
            let relay = relay_before_echo(seed);
            relay.set(Weather::Cut(1000..9000));
            let one = || {
                let mut stream = TcpStream::connect(relay.address()).unwrap();
                let mut sent = 0;
                while echoed(&mut stream, &[3; 100]).is_ok() {
                    sent += 100;
                }
                sent
            };
            let lengths = vec![one(), one(), one()];
            assert_eq!(relay.cuts(), 3);
            lengths
        };
        let lengths = cut_after(5);
        assert!(lengths.iter().all(|length| (400..4600).contains(length)), "{lengths:?}");
        assert_eq!(lengths, cut_after(5));
        assert_ne!(lengths, cut_after(6));
    }

    #[test]
    fn refused_connections_end_at_once_and_a_dropped_relay_ends_all() {
        let relay = relay_before_echo(1);
        let mut old = TcpStream::connect(relay.address()).unwrap();
        echoed(&mut old, b"hello").unwrap();
        let mut stays = TcpStream::connect(relay.address()).unwrap();
        echoed(&mut stays, b"hello").unwrap();
        relay.set(Weather::Refuse);
        echoed(&mut old, b"again").unwrap_err();
        drop(relay);
        echoed(&mut stays, b"again").unwrap_err();
    }
}
