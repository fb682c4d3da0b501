//! Who may do what. Pure: everything that a decision depends on is an argument.

use seedbank_formats::receipt::ReaderToken;
use seedbank_formats::{PublicKey, Timestamp};
use seedbank_protocol::messages::{Problem, ProblemCode};
use seedbank_protocol::routes::Caller;
use seedbank_store::{Access, Grant};

/// The furthest that a claim may reach. A claim that outlives its client costs the provider until then; clients renew
/// long before.
pub(crate) const RENEWAL_SECONDS_MAX: u64 = 400 * 86_400;

/// Whether a key with this quota may call a route at all. What it may do there with one fragment is decided when that
/// fragment's claims are known.
pub(crate) fn may_call(caller: Caller, quota_bytes: u64) -> Result<(), Problem> {
    match caller {
        Caller::AnyKey | Caller::Claimant | Caller::Party | Caller::Reader => Ok(()),
        Caller::Customer => must_be_known(quota_bytes),
    }
}

/// Refuses keys to which the operator grants nothing.
pub(crate) fn must_be_known(quota_bytes: u64) -> Result<(), Problem> {
    if quota_bytes == 0 {
        let message = "this key has no quota here: ask the operator to add it to `clients`";
        return Err(Problem::new(ProblemCode::UnknownClient, message));
    }
    Ok(())
}

/// What a caller may read of a fragment before a token is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A claim is its own, or says public.
    Allowed,
    /// Only with a token.
    NeedsToken,
    /// Nobody claims the fragment.
    Absent,
}

/// Where a caller stands with a fragment's claims.
pub(crate) fn standing(caller: &PublicKey, grants: &[Grant]) -> Standing {
    let open = |grant: &Grant| grant.client == *caller || grant.access == Access::Public;
    match grants {
        [] => Standing::Absent,
        grants if grants.iter().any(open) => Standing::Allowed,
        _ => Standing::NeedsToken,
    }
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenFault {
    #[error("this fragment needs a reader token")]
    Missing,
    #[error("the reader token is malformed or its signature does not fit")]
    Forged,
    #[error("the reader token was given to another key")]
    OtherBearer,
    #[error("the reader token has expired")]
    Expired,
    #[error("the reader token is for another dataset")]
    OtherDataset,
}

impl From<TokenFault> for Problem {
    fn from(fault: TokenFault) -> Problem {
        Problem::new(ProblemCode::TokenRefused, fault.to_string())
    }
}

/// Whether a token, whose signature was found right, lets its bearer read what these claims cover.
pub(crate) fn check_token(
    caller: &PublicKey,
    grants: &[Grant],
    token: &ReaderToken,
    now: Timestamp,
) -> Result<(), TokenFault> {
    if token.bearer != *caller {
        return Err(TokenFault::OtherBearer);
    }
    if token.until < now {
        return Err(TokenFault::Expired);
    }
    let opens = |grant: &Grant| grant.access == Access::Reader(token.reader);
    if grants.iter().any(opens) { Ok(()) } else { Err(TokenFault::OtherDataset) }
}

/// Whether a new claim may end then. That it ends no later than a pending claim may is the store's to see to.
pub(crate) fn check_pending(until: Timestamp, now: Timestamp) -> Result<(), Problem> {
    if until <= now {
        let message = format!("the claim would end at {until}, and it is {now} here: compare the clocks");
        return Err(Problem::new(ProblemCode::BadRequest, message));
    }
    Ok(())
}

/// Whether a claim may be renewed until then.
pub(crate) fn check_renewal(until: Timestamp, now: Timestamp) -> Result<(), Problem> {
    let furthest = now.plus_seconds(RENEWAL_SECONDS_MAX);
    if until > furthest {
        let message = format!("a claim can be renewed until {furthest} at most, not {until}");
        return Err(Problem::new(ProblemCode::BadRequest, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        RENEWAL_SECONDS_MAX, Standing, TokenFault, check_pending, check_renewal, check_token, may_call,
        standing,
    };
    use seedbank_formats::receipt::ReaderToken;
    use seedbank_formats::{PublicKey, Timestamp};
    use seedbank_protocol::messages::ProblemCode;
    use seedbank_protocol::routes::Caller;
    use seedbank_store::{Access, Grant};

    const OWNER: PublicKey = PublicKey([1; 32]);
    const OTHER: PublicKey = PublicKey([2; 32]);
    const READER_KEY: PublicKey = PublicKey([3; 32]);
    const NOW: Timestamp = Timestamp(1_000);

    fn grant(access: Access) -> Grant {
        Grant { client: OWNER, access }
    }

    fn token() -> ReaderToken {
        ReaderToken { reader: READER_KEY, bearer: OTHER, until: NOW }
    }

    #[test]
    fn only_storing_needs_quota() {
        for caller in [Caller::AnyKey, Caller::Claimant, Caller::Party, Caller::Reader] {
            assert_eq!(may_call(caller, 0), Ok(()));
        }
        assert_eq!(may_call(Caller::Customer, 1), Ok(()));
        assert_eq!(may_call(Caller::Customer, 0).unwrap_err().code, ProblemCode::UnknownClient);
    }

    #[test]
    fn owners_read_everybody_reads_public_and_others_need_a_token() {
        assert_eq!(standing(&OWNER, &[grant(Access::Owner)]), Standing::Allowed);
        assert_eq!(standing(&OTHER, &[grant(Access::Public)]), Standing::Allowed);
        assert_eq!(standing(&OTHER, &[grant(Access::Owner)]), Standing::NeedsToken);
        assert_eq!(standing(&OTHER, &[grant(Access::Reader(READER_KEY))]), Standing::NeedsToken);
        assert_eq!(standing(&READER_KEY, &[grant(Access::Reader(READER_KEY))]), Standing::NeedsToken);
        assert_eq!(standing(&OWNER, &[]), Standing::Absent);
        let both = [grant(Access::Owner), grant(Access::Public)];
        assert_eq!(standing(&OTHER, &both), Standing::Allowed);
    }

    #[test]
    fn token_opens_what_its_reader_key_is_named_for_to_its_bearer_in_its_time() {
        let grants = [grant(Access::Owner), grant(Access::Reader(READER_KEY))];
        assert_eq!(check_token(&OTHER, &grants, &token(), NOW), Ok(()));
        assert_eq!(check_token(&OWNER, &grants, &token(), NOW), Err(TokenFault::OtherBearer));
        let later = Timestamp(NOW.0 + 1);
        assert_eq!(check_token(&OTHER, &grants, &token(), later), Err(TokenFault::Expired));
        for access in [Access::Owner, Access::Reader(OTHER)] {
            let grants = [grant(access)];
            assert_eq!(check_token(&OTHER, &grants, &token(), NOW), Err(TokenFault::OtherDataset));
        }
    }

    #[test]
    fn claims_end_neither_in_the_past_nor_beyond_all_reason() {
        assert!(check_pending(NOW, NOW).is_err() && check_pending(Timestamp(1_001), NOW).is_ok());
        let furthest = NOW.plus_seconds(RENEWAL_SECONDS_MAX);
        assert!(check_renewal(furthest, NOW).is_ok());
        assert!(check_renewal(furthest.plus_seconds(1), NOW).is_err());
        assert!(check_renewal(Timestamp(u64::MAX), NOW).is_err());
    }
}
