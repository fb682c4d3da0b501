//! What client and provider say about money.

use crate::input::Input;
use crate::messages::reads_back;
use seedbank_protocol::payment::{
    ProposalAnswer, ProposalRequest, QuoteAnswer, RevisionAnswer, RevisionRequest, SetPage, VoucherAnswer,
    VoucherRequest,
};
use seedbank_protocol::routes::{SET_CHANGE_MAX, SET_PAGE_MAX};

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.below(8);
    let bytes = input.rest();
    match kind {
        0 => drop(reads_back(bytes, QuoteAnswer::decode, QuoteAnswer::encode)),
        1 => {
            if let Some(request) = reads_back(bytes, ProposalRequest::decode, ProposalRequest::encode) {
                assert!(request.added.is_sorted_by(|left, right| left.fragment < right.fragment));
            }
        }
        2 => drop(reads_back(bytes, ProposalAnswer::decode, ProposalAnswer::encode)),
        3 => {
            if let Some(request) = reads_back(bytes, RevisionRequest::decode, RevisionRequest::encode) {
                assert!(request.added.len().max(request.removed.len()) <= SET_CHANGE_MAX);
                assert!(request.revision.message.sequence > request.base_sequence);
            }
        }
        4 => {
            if let Some(RevisionAnswer::Refused(refusal)) =
                reads_back(bytes, RevisionAnswer::decode, RevisionAnswer::encode)
            {
                assert!(!refusal.message.chars().any(char::is_control), "it can be shown");
            }
        }
        5 => {
            if let Some(page) = reads_back(bytes, SetPage::decode, SetPage::encode) {
                assert!(page.leaves.len() <= SET_PAGE_MAX);
            }
        }
        6 => drop(reads_back(bytes, VoucherRequest::decode, VoucherRequest::encode)),
        _ => drop(reads_back(bytes, VoucherAnswer::decode, VoucherAnswer::encode)),
    }
}
