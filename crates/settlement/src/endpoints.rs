//! Several endpoints as one: which is asked, and what happens when one is dead, slow, behind, or not what it claims to be.
//!
//! **What is noticed.** An endpoint of another chain, or without our contracts or with other code in them, is never used. One that
//! does not answer in time or answers nonsense rests, longer each time, and the next one is asked. One whose head is behind what
//! another has shown, or behind a block in which a transaction of ours was seen, is passed over until it has caught up. Endpoints
//! that show different blocks at one height are noticed by comparing them; the smaller party (or the one configured later) is asked
//! last, and that is logged.
//!
//! **What is not.** An endpoint that shows the right chain's blocks but lies about state, without another one to compare with.
//! Its lies can make us wait, or send a transaction that the chain then refuses; they can't move money, because signatures hold for one
//! contract on one chain, and what a payee or provider is owed is decided by the chain and not by what it is told about it. Whoever wants
//! more runs a node of its own.

mod health;

use crate::deployment::Deployment;
use crate::rpc::{Block, Endpoint, EndpointFault, EndpointUrl, RpcError};
use health::{Health, Identity};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::warn;

/// How endpoints are dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// What one question may take, with connecting.
    pub deadline: Duration,
    /// How many blocks an endpoint may be behind the best one.
    pub lag_blocks_max: u64,
    /// How often heads and blocks of the endpoints are compared, if there are several.
    pub compare_every: Duration,
    /// How long to wait for an endpoint that knows a block that we have seen: behind one address there may be nodes of several ages.
    pub catch_up: Duration,
}

impl Default for EndpointPolicy {
    /// For public endpoints; local ones are so much faster that it doesn't matter.
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            lag_blocks_max: 10,
            compare_every: Duration::from_secs(15),
            catch_up: Duration::from_secs(10),
        }
    }
}

/// No endpoint gave an answer: each with why. Wait and try again, or configure others.
#[derive(Debug)]
pub struct Unanswered {
    /// Why, of each endpoint that was asked.
    pub faults: Vec<(EndpointUrl, EndpointFault)>,
}

impl Unanswered {
    /// Whether an endpoint understood the question and refused it.
    pub(crate) fn refusal(&self) -> Option<&RpcError> {
        self.faults.iter().find_map(|(_, fault)| match fault {
            EndpointFault::Refused(error) => Some(error),
            _ => None,
        })
    }

    fn only_behind(&self) -> bool {
        self.faults.iter().any(|(_, fault)| matches!(fault, EndpointFault::Behind { .. }))
            && !self.faults.iter().any(|(_, fault)| matches!(fault, EndpointFault::Refused(_)))
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no endpoint of the chain answers")?;
        for (url, fault) in &self.faults {
            write!(f, "; {url}: {fault}")?;
            // A fault's source is what the system said.
            let mut source = std::error::Error::source(fault);
            while let Some(cause) = source {
                write!(f, ": {cause}")?;
                source = cause.source();
            }
        }
        Ok(())
    }
}

impl std::error::Error for Unanswered {}

/// How an endpoint stands, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointStatus {
    /// Which one.
    pub url: EndpointUrl,
    /// The newest block that it has shown.
    pub head: u64,
    /// Why it isn't used now, if so.
    pub problem: Option<String>,
}

/// What every endpoint must serve.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) chain_id: u64,
    /// None before a deployment exists.
    pub(crate) deployment: Option<Arc<Deployment>>,
}

/// The endpoints of one chain.
pub(crate) struct Endpoints {
    all: Vec<Arc<Endpoint>>,
    expected: Expected,
    policy: EndpointPolicy,
    health: Mutex<State>,
}

struct State {
    each: Vec<Health>,
    /// The place of the endpoint that is asked first, as long as it is as good as the others.
    first: usize,
    /// The highest block in which something of ours was seen: whoever doesn't know it has nothing to tell us.
    floor: u64,
    compared: Option<Instant>,
}

/// What [`Endpoints::ask`] may answer but a result.
pub(crate) type Asked<T> = Result<T, Unanswered>;

impl Endpoints {
    /// Those in `right` were seen to serve what is expected; the others are looked at when they are asked.
    pub(crate) fn new(
        all: Vec<Arc<Endpoint>>,
        right: &[usize],
        expected: Expected,
        policy: EndpointPolicy,
    ) -> Self {
        let mut each = vec![Health::default(); all.len()];
        for &at in right {
            each[at].identity = Identity::Right;
        }
        let health = Mutex::new(State { each, first: 0, floor: 0, compared: None });
        Self { all, expected, policy, health }
    }

    pub(crate) fn chain_id(&self) -> u64 {
        self.expected.chain_id
    }

    /// Says that something of ours is in this block, so that no older answer is taken.
    pub(crate) fn saw_block(&self, number: u64) {
        let mut state = self.state();
        state.floor = state.floor.max(number);
    }

    /// Asks the endpoint at this place before those that are as good, from now on.
    pub(crate) fn ask_first(&self, place: usize) {
        self.state().first = place;
    }

    /// How each endpoint stands.
    pub(crate) fn status(&self) -> Vec<EndpointStatus> {
        let state = self.state();
        let best = health::best_head(&state.each);
        let now = Instant::now();
        let status = |(endpoint, health): (&Arc<Endpoint>, &Health)| EndpointStatus {
            url: endpoint.url().clone(),
            head: health.head,
            problem: health.problem(best, self.policy.lag_blocks_max, now),
        };
        self.all.iter().zip(&state.each).map(status).collect()
    }

    /// Asks the best endpoint, then the next. An error that is about the question ends it: another endpoint would say the same.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, method: &str, params: Value) -> Asked<T> {
        let patience = Instant::now() + self.policy.catch_up;
        loop {
            match self.ask_each(method, &params).await {
                Err(unanswered) if unanswered.only_behind() && Instant::now() < patience => {
                    sleep(CATCH_UP_STEP).await;
                }
                answer => return answer,
            }
        }
    }

    async fn ask_each<T: DeserializeOwned>(&self, method: &str, params: &Value) -> Asked<T> {
        if self.all.len() > 1 {
            Box::pin(self.compare_if_due()).await;
        }
        let mut faults = Vec::new();
        for at in self.order() {
            let endpoint = &self.all[at];
            let answer = match self.ready(at).await {
                Ok(()) => endpoint.ask(method, params).await,
                Err(fault) => Err(fault),
            };
            match answer {
                Ok(answer) => {
                    self.state().each[at].answered();
                    return Ok(answer);
                }
                Err(fault) => {
                    let last =
                        matches!(&fault, EndpointFault::Refused(error) if is_about_the_question(error));
                    self.failed(at, &fault);
                    faults.push((endpoint.url().clone(), fault));
                    if last {
                        break;
                    }
                }
            }
        }
        Err(Unanswered { faults })
    }

    /// Hands a signed transaction to every endpoint that serves the chain: one that keeps it to itself must not be able to hold it up.
    /// Whoever takes it decides; if nobody does, the first refusal does.
    pub(crate) async fn broadcast(&self, raw: &str) -> Result<(), Unanswered> {
        let mut sends = JoinSet::new();
        let mut faults = Vec::new();
        for at in self.order() {
            match self.ready(at).await {
                // A node that is behind takes transactions as well as any.
                Ok(()) | Err(EndpointFault::Behind { .. }) => {}
                Err(fault) => {
                    self.failed(at, &fault);
                    faults.push((self.all[at].url().clone(), fault));
                    continue;
                }
            }
            let endpoint = Arc::clone(&self.all[at]);
            let params = json!([raw]);
            sends.spawn(async move { (at, endpoint.ask::<Value>("eth_sendRawTransaction", &params).await) });
        }
        let mut taken = false;
        while let Some(sent) = sends.join_next().await {
            let (at, answer) = sent.expect("asking an endpoint does not panic");
            match answer {
                Ok(_) => taken = true,
                Err(EndpointFault::Refused(error)) if is_already_known(&error) => taken = true,
                Err(fault) => {
                    // A refusal here is about the transaction, and says nothing about the endpoint.
                    if !matches!(fault, EndpointFault::Refused(_)) {
                        self.failed(at, &fault);
                    }
                    faults.push((self.all[at].url().clone(), fault));
                }
            }
        }
        if taken { Ok(()) } else { Err(Unanswered { faults }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self) -> Vec<usize> {
        let state = self.state();
        health::order(&state.each, state.first, self.policy.lag_blocks_max, Instant::now())
    }

    fn failed(&self, at: usize, fault: &EndpointFault) {
        let url = self.all[at].url();
        let mut state = self.state();
        match fault {
            EndpointFault::Refused(_) | EndpointFault::Behind { .. } => {}
            EndpointFault::WrongChain(why) => {
                if !matches!(state.each[at].identity, Identity::Wrong(_)) {
                    warn!(endpoint = %url, why, "endpoint serves something else and is not used");
                }
                state.each[at].identity = Identity::Wrong(why.clone());
            }
            EndpointFault::Unreachable(_) | EndpointFault::Silent(_) | EndpointFault::Garbled(_) => {
                let rest = state.each[at].failed(Instant::now());
                warn!(endpoint = %url, %fault, rest_s = rest.as_secs(), "endpoint failed");
            }
        }
    }

    /// Whether an endpoint may be asked: it is what it claims to be, and knows what we have seen.
    async fn ready(&self, at: usize) -> Result<(), EndpointFault> {
        let endpoint = &self.all[at];
        let (identity, head, floor) = {
            let state = self.state();
            (state.each[at].identity.clone(), state.each[at].head, state.floor)
        };
        match identity {
            Identity::Right => {}
            Identity::Wrong(why) => return Err(EndpointFault::WrongChain(why)),
            Identity::Unchecked => {
                Box::pin(identify(endpoint, &self.expected)).await?;
                self.state().each[at].identity = Identity::Right;
            }
        }
        if head < floor {
            let head = head_number(endpoint).await?;
            self.state().each[at].shows(head);
            if head < floor {
                return Err(EndpointFault::Behind { head, wanted: floor });
            }
        }
        Ok(())
    }

    /// Compares the endpoints' heads, and their blocks at a height that all have.
    async fn compare_if_due(&self) {
        let now = Instant::now();
        {
            let mut state = self.state();
            if state.compared.is_some_and(|last| now.duration_since(last) < self.policy.compare_every) {
                return;
            }
            state.compared = Some(now);
        }
        let usable: Vec<usize> = {
            let state = self.state();
            (0..self.all.len()).filter(|&at| state.each[at].is_worth_asking(now)).collect()
        };
        for at in &usable {
            if let Err(fault) = self.ready(*at).await {
                self.failed(*at, &fault);
            }
        }
        let heads = self.of_each(&usable, |endpoint| async move { head_number(&endpoint).await }).await;
        for (at, head) in &heads {
            self.state().each[*at].shows(*head);
        }
        let best = heads.iter().map(|(_, head)| *head).max().unwrap_or(0);
        let fresh: Vec<usize> = heads
            .iter()
            .filter(|(_, head)| head + self.policy.lag_blocks_max >= best)
            .map(|(at, _)| *at)
            .collect();
        // Below the newest blocks, so that a block that is just being replaced is not taken for a lie.
        let height = heads
            .iter()
            .filter(|(at, _)| fresh.contains(at))
            .map(|(_, head)| *head)
            .min()
            .unwrap_or(0)
            .saturating_sub(COMPARED_DEPTH);
        let blocks = self
            .of_each(&fresh, move |endpoint| async move {
                let params = json!([format!("{height:#x}"), false]);
                endpoint.ask::<Option<Block>>("eth_getBlockByNumber", &params).await
            })
            .await;
        let shown: Vec<(usize, [u8; 32])> =
            blocks.into_iter().filter_map(|(at, block)| block.map(|block| (at, block.hash.0))).collect();
        let disputed = health::minority(&shown);
        let mut state = self.state();
        for (at, health) in state.each.iter_mut().enumerate() {
            let is_disputed = disputed.contains(&at);
            if is_disputed && !health.disputed {
                warn!(endpoint = %self.all[at].url(), height, "endpoint shows another block than the others");
            }
            health.disputed = is_disputed;
        }
    }

    async fn of_each<T, F>(&self, which: &[usize], ask: impl Fn(Arc<Endpoint>) -> F) -> Vec<(usize, T)>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, EndpointFault>> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        for &at in which {
            if matches!(self.state().each[at].identity, Identity::Right) {
                let asking = ask(Arc::clone(&self.all[at]));
                tasks.spawn(async move { (at, asking.await) });
            }
        }
        let mut answers = Vec::new();
        while let Some(done) = tasks.join_next().await {
            match done.expect("asking an endpoint does not panic") {
                (at, Ok(answer)) => answers.push((at, answer)),
                (at, Err(fault)) => self.failed(at, &fault),
            }
        }
        answers.sort_by_key(|(at, _)| *at);
        answers
    }
}

/// A node behind the same address may be asked next.
const CATCH_UP_STEP: Duration = Duration::from_millis(100);
/// Two endpoints of one chain may differ in the newest blocks for a moment.
const COMPARED_DEPTH: u64 = 3;

async fn head_number(endpoint: &Endpoint) -> Result<u64, EndpointFault> {
    let number: alloy_primitives::U64 = endpoint.ask("eth_blockNumber", &json!([])).await?;
    Ok(number.to())
}

/// The id of the chain that an endpoint serves.
pub(crate) async fn chain_id_of(endpoint: &Endpoint) -> Result<u64, EndpointFault> {
    let id: alloy_primitives::U64 = endpoint.ask("eth_chainId", &json!([])).await?;
    Ok(id.to())
}

async fn identify(endpoint: &Endpoint, expected: &Expected) -> Result<(), EndpointFault> {
    let chain_id = chain_id_of(endpoint).await?;
    if chain_id != expected.chain_id {
        let why = format!("chain {chain_id} instead of {}", expected.chain_id);
        return Err(EndpointFault::WrongChain(why));
    }
    let Some(deployment) = &expected.deployment else { return Ok(()) };
    let found =
        Deployment::read(endpoint, chain_id, deployment.directory).await.map_err(|error| match error {
            crate::deployment::DeploymentError::Endpoint(fault) => fault,
            other => EndpointFault::WrongChain(other.to_string()),
        })?;
    if found != **deployment {
        return Err(EndpointFault::WrongChain("other contracts than the other endpoints have".to_owned()));
    }
    Ok(())
}

/// Whether another endpoint of the same chain would give the same error.
fn is_about_the_question(error: &RpcError) -> bool {
    // Code 3 is what most nodes give for a call that reverts; the others say it in words, with the data.
    error.code == 3 || error.message.contains("revert") || error.message.contains("insufficient funds")
}

/// Whether a node refuses a transaction because it has it.
pub(crate) fn is_already_known(error: &RpcError) -> bool {
    let message = error.message.to_lowercase();
    message.contains("already known")
        || message.contains("known transaction")
        || message.contains("already imported")
}
