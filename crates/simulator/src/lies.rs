//! What lying providers say instead of the truth.

use crate::calls::Call;
use crate::options::Lie;
use crate::provider::{Request, Response};
use crate::world::World;
use seedbank_formats::keys::SigningKey;
use seedbank_formats::receipt::{Answer, Receipt, Statement};
use seedbank_formats::{FragmentId, Timestamp};
use seedbank_protocol::messages::ProblemCode;

impl World {
    /// What a liar says instead.
    pub(crate) fn lie(&mut self, call: u64, lie: Lie, honest: Response) -> Response {
        if self.random.chance(250) {
            return honest;
        }
        let Call { client, provider, request, .. } = &self.calls[&call];
        let (client, request) = (*client, request.clone());
        let provider = &self.providers[*provider];
        let asker = self.clients[client].key.public();
        let other = SigningKey::from_seed([99; 32]);
        let time = Timestamp(1_900_000_000);
        let receipt = |fragment, length, until| Receipt {
            provider: provider.public,
            client: asker,
            fragment,
            length,
            until,
            time,
        };
        let flipped = |bytes: &[u8], at: u64| {
            let mut bytes = bytes.to_vec();
            let length = bytes.len().max(1) as u64;
            if let Some(byte) = bytes.get_mut(usize::try_from(at % length).expect("below a length")) {
                *byte ^= 1;
            }
            bytes
        };
        let at = self.random.below(1 << 20);
        match (lie, &honest, &request) {
            (Lie::WrongBytes, Response::Bytes(bytes), _) => Response::Bytes(flipped(bytes, at)),
            (Lie::WrongProof, Response::Bytes(bytes), _) => Response::Bytes(flipped(bytes, at)),
            (Lie::WrongProof, Response::Proof(proof), Request::Proof { fragment, range })
                if proof.len() > Statement::ENCODED_LEN =>
            {
                let slice = flipped(&proof[Statement::ENCODED_LEN..], at);
                let answer = Answer::Slice(FragmentId::of(&slice).0);
                Response::Proof(provider.statement(*fragment, range, answer, &slice, time))
            }
            (Lie::WrongStatement, Response::Proof(proof), Request::Proof { fragment, range }) => {
                let slice = proof.get(Statement::ENCODED_LEN..).unwrap_or_default();
                let answer = Answer::Slice(FragmentId::of(slice).0);
                let elsewhere = range.start..range.end + 1;
                let another = FragmentId([1; 32]);
                match at % 4 {
                    0 => Response::Proof(provider.statement(*fragment, &elsewhere, answer, slice, time)),
                    1 => Response::Proof(provider.statement(another, range, answer, slice, time)),
                    2 => Response::Proof(provider.statement(
                        *fragment,
                        range,
                        Answer::Slice([3; 32]),
                        slice,
                        time,
                    )),
                    _ => Response::Proof(flipped(proof, at % (Statement::ENCODED_LEN as u64))),
                }
            }
            (Lie::WrongStatement, Response::Bytes(bytes), _) => Response::Bytes(flipped(bytes, at)),
            (Lie::SignedRot, Response::Bytes(_), _) => Response::Problem(ProblemCode::Rotten),
            (Lie::SignedRot, Response::Proof(_), Request::Proof { fragment, range }) => {
                Response::Proof(provider.statement(*fragment, range, Answer::Rotten, &[], time))
            }
            (Lie::Denial, Response::Bytes(_), _) => Response::Problem(ProblemCode::NotFound),
            (Lie::Denial, Response::Proof(_), Request::Proof { fragment, range }) => {
                Response::Proof(provider.statement(*fragment, range, Answer::Absent, &[], time))
            }
            (Lie::ReceiptForOther, Response::Receipt(_), Request::Put { fragment, bytes, until, .. }) => {
                let wrong =
                    FragmentId(flipped(fragment.as_bytes(), at).try_into().expect("as long as before"));
                Response::Receipt(receipt(wrong, bytes.len() as u64, *until).sign(&provider.key))
            }
            (Lie::ReceiptLength, Response::Receipt(_), Request::Put { fragment, bytes, until, .. }) => {
                Response::Receipt(receipt(*fragment, bytes.len() as u64 + 1, *until).sign(&provider.key))
            }
            (Lie::ReceiptTime, Response::Receipt(_), Request::Put { fragment, bytes, .. }) => {
                Response::Receipt(receipt(*fragment, bytes.len() as u64, Timestamp(1)).sign(&provider.key))
            }
            (Lie::ForgedSignature, Response::Receipt(_), Request::Put { fragment, bytes, until, .. }) => {
                Response::Receipt(receipt(*fragment, bytes.len() as u64, *until).sign(&other))
            }
            (Lie::ForgedSignature, Response::Proof(proof), _) => Response::Proof(flipped(proof, 200)),
            (Lie::ForgedSignature, Response::Bytes(bytes), _) => Response::Bytes(flipped(bytes, at)),
            (Lie::OtherQuestion, Response::Receipt(_), _) => self.answer_of_another(call, honest),
            (Lie::OtherQuestion, Response::Bytes(_) | Response::Proof(_), _) => {
                self.answer_of_another(call, honest)
            }
            (Lie::Garbage, Response::Bytes(bytes), _) => Response::Bytes([&bytes[..], &[0]].concat()),
            (Lie::Garbage, Response::Proof(_), _) => Response::Proof(vec![0; 300]),
            (Lie::Garbage, Response::Receipt(_), _) => Response::Receipt(vec![1; 150]),
            (Lie::Garbage, Response::Claims(_), _) => Response::Claims(b"[{}]".to_vec()),
            _ => honest,
        }
    }

    /// What the same provider would say, truthfully, to another question of the same kind.
    fn answer_of_another(&mut self, call: u64, honest: Response) -> Response {
        let provider = self.calls[&call].provider;
        let now = self.provider_wall(provider);
        let asked = std::mem::discriminant(&self.calls[&call].request);
        let others = self.calls.iter().rev().filter(|(other, earlier)| {
            **other != call
                && earlier.provider == provider
                && std::mem::discriminant(&earlier.request) == asked
        });
        let Some((_, other)) = others.into_iter().next() else { return honest };
        let asker = self.clients[other.client].key.public();
        let one = &self.providers[provider];
        match &other.request {
            Request::Get { fragment, range } => one.get(&asker, *fragment, range, now).0,
            Request::Proof { fragment, range } => one.prove(&asker, *fragment, range, now).0,
            Request::Put { fragment, bytes, until, asked, .. } => {
                let stored =
                    seedbank_store::Stored { id: *fragment, length: bytes.len() as u64, until: *until };
                one.acknowledge(asker, &stored, *asked, now).0
            }
            Request::Claims { .. } => honest,
        }
    }
}
