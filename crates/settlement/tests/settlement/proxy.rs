//! An endpoint that misbehaves: it passes questions on to a node, but what a test tells it to do otherwise.

use crate::nodes::{Node, post};
use seedbank_settlement::EndpointUrl;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What to do with a question.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Forward,
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
    Close,
}

type Rule = Box<dyn FnMut(&str, &Value) -> Act + Send>;

struct State {
    rule: Rule,
    asked: Vec<(String, Value)>,
}

/// The endpoint.
pub(crate) struct Proxy {
    address: String,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Proxy {
    /// Passes everything on.
    pub(crate) async fn of(node: &Node) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let rule: Rule = Box::new(|_, _| Act::Forward);
        let state = Arc::new(Mutex::new(State { rule, asked: Vec::new() }));
        let (shared, node) = (Arc::clone(&state), node.address().to_owned());
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&shared), node.clone()));
            }
        });
        Self { address, state, serving }
    }

    pub(crate) fn url(&self) -> EndpointUrl {
        // A secret in the path, as public endpoints have it.
        format!("http://{}/v1/secret", self.address).parse().unwrap()
    }

    /// From now on, questions are dealt with like this.
    pub(crate) fn does(&self, rule: impl FnMut(&str, &Value) -> Act + Send + 'static) {
        self.state().rule = Box::new(rule);
    }

    /// Questions of one method so far.
    pub(crate) fn asked(&self, method: &str) -> Vec<Value> {
        let of_method = |(asked, params): &(String, Value)| (asked == method).then(|| params.clone());
        self.state().asked.iter().filter_map(of_method).collect()
    }

    /// All questions so far.
    pub(crate) fn count(&self) -> usize {
        self.state().asked.len()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>, node: String) {
    let mut stream = BufReader::new(stream);
    while let Some(question) = read(&mut stream).await {
        let method = question["method"].as_str().unwrap().to_owned();
        let params = question["params"].clone();
        let act = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.asked.push((method.clone(), params.clone()));
            (state.rule)(&method, &params)
        };
        let id = question["id"].clone();
        let answer = match act {
            Act::Forward => post(&node, &question).await.to_string(),
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
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(serde_json::from_slice(&body).unwrap())
}
