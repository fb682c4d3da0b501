//! An endpoint that misbehaves: it passes questions on to a node, but what a test tells it to do otherwise.

use super::nodes::{Node, try_post};
use seedbank_settlement::EndpointUrl;
use serde_json::{Value, json};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What to do with a question.
#[derive(Debug, Clone)]
pub enum Act {
    /// Passes it on.
    Forward,
    /// Passes it on, and changes the result.
    Change(fn(&mut Value)),
    /// This result instead.
    Answer(Value),
    /// This error instead.
    Refuse(i64, &'static str),
    /// Nothing, ever.
    Hang,
    /// Something that is no JSON-RPC.
    Nonsense,
    /// An answer that never ends.
    Endless,
    /// Breaks the connection off.
    Close,
}

type Rule = Box<dyn FnMut(&str, &Value) -> Act + Send>;

struct State {
    /// Host and port of the node behind it.
    node: String,
    rule: Rule,
    asked: Vec<(String, Value)>,
}

/// The endpoint.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

impl fmt::Debug for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "before {}", self.node)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Proxy {
    /// Passes everything on.
    pub async fn of(node: &Node) -> Self {
        Self::before(node.address()).await
    }

    /// Passes everything on to a host and port.
    pub async fn before(node: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let rule: Rule = Box::new(|_, _| Act::Forward);
        let state = Arc::new(Mutex::new(State { node: node.to_owned(), rule, asked: Vec::new() }));
        let shared = Arc::clone(&state);
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { address, state, serving }
    }

    /// What its users configure.
    #[must_use]
    pub fn url(&self) -> EndpointUrl {
        // A secret in the path, as public endpoints have it.
        format!("http://{}/v1/secret", self.address).parse().unwrap()
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// From now on, the node behind it is this one.
    pub fn turns_to(&self, node: &str) {
        node.clone_into(&mut self.state().node);
    }

    /// From now on, questions are dealt with like this.
    pub fn does(&self, rule: impl FnMut(&str, &Value) -> Act + Send + 'static) {
        self.state().rule = Box::new(rule);
    }

    /// Questions of one method so far.
    #[must_use]
    pub fn asked(&self, method: &str) -> Vec<Value> {
        let of_method = |(asked, params): &(String, Value)| (asked == method).then(|| params.clone());
        self.state().asked.iter().filter_map(of_method).collect()
    }

    /// All questions so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state().asked.len()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut stream = BufReader::new(stream);
    while let Some((question, last)) = read(&mut stream).await {
        let method = question["method"].as_str().unwrap().to_owned();
        let params = question["params"].clone();
        let (act, node) = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.asked.push((method.clone(), params.clone()));
            ((state.rule)(&method, &params), state.node.clone())
        };
        let id = question["id"].clone();
        let answer = match act {
            Act::Forward => match try_post(&node, &question).await {
                Some(answer) => answer.to_string(),
                None => return,
            },
            Act::Change(change) => match try_post(&node, &question).await {
                Some(mut answer) => {
                    change(&mut answer["result"]);
                    answer.to_string()
                }
                None => return,
            },
            Act::Answer(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string(),
            Act::Refuse(code, message) => {
                json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
                    .to_string()
            }
            Act::Hang => std::future::pending().await,
            Act::Nonsense => "<html>Service unavailable</html>".to_owned(),
            Act::Endless => {
                let mut written = stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                while written.is_ok() {
                    written = stream.get_mut().write_all(&[b'['; 1 << 16]).await;
                }
                return;
            }
            Act::Close => return,
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
        // Whoever asked may have given up.
        if stream.get_mut().write_all((head + &answer).as_bytes()).await.is_err() {
            return;
        }
        if last == Last::Yes {
            return;
        }
    }
}

/// Whether the connection ends with an answer.
#[derive(PartialEq, Eq)]
enum Last {
    Yes,
    No,
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<(Value, Last)> {
    let (mut length, mut last) = (0, Last::No);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        if line == "connection: close" {
            last = Last::Yes;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((serde_json::from_slice(&body).unwrap(), last))
}
