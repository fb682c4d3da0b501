//! Jobs.

use super::{Desk, fragment, key, provider};
use crate::operations::Books;
use crate::records::{Holding, Work};
use seedbank_formats::{Asked, Timestamp};

#[test]
fn jobs_are_kept_once_taken_for_a_time_and_rest_after_failures() {
    let desk = Desk::new();
    let work = || Work::RenewClaims { provider: provider(1) };
    let id = desk.add_job(work(), Timestamp(1_000_500)).unwrap();
    assert_eq!(desk.add_job(work(), Timestamp(1_000_900)).unwrap(), id);
    assert!(desk.take_jobs(10, 60).unwrap().is_empty(), "not due");
    desk.now.set(1_000_500);
    assert_eq!(desk.take_jobs(10, 60).unwrap().len(), 1);
    assert!(desk.take_jobs(10, 60).unwrap().is_empty(), "taken");
    desk.now.set(1_000_561);
    let job = desk.take_jobs(10, 60).unwrap().remove(0);
    assert_eq!((job.id, job.attempts), (id, 0));
    desk.fail_job(id, "no route".repeat(1000)).unwrap();
    let failed = desk.jobs(10).unwrap().remove(0);
    assert_eq!((failed.attempts, failed.last_error.unwrap().len()), (1, 500));
    assert!((1_000_576..1_000_581).contains(&failed.not_before.0), "{}", failed.not_before.0);

    desk.now.set(1_000_600);
    desk.take_jobs(10, 60).unwrap();
    assert_eq!(desk.add_job(work(), Timestamp(1_000_600)).unwrap(), id, "asked for again while it is done");
    desk.finish_job(id).unwrap();
    assert_eq!(desk.take_jobs(10, 60).unwrap().remove(0).attempts, 0, "so it is done once more");
    desk.finish_job(id).unwrap();
    desk.finish_job(id).unwrap();
    desk.fail_job(id, String::new()).unwrap();
    assert!(desk.jobs(10).unwrap().is_empty());
}

#[test]
fn a_release_never_names_what_the_provider_holds_by_the_books() {
    let desk = Desk::new();
    let spare = provider(6);
    let fragments = vec![fragment(0, 1), fragment(77, 0)];
    desk.add_job(Work::ReleaseClaims { provider: spare, fragments, asked: Asked(1) }, Timestamp(0)).unwrap();
    desk.push_version(1);
    desk.set_holder(key(0, 1), Some(Holding { provider: spare, until: Timestamp(2_000_000) })).unwrap();
    let jobs = desk.take_jobs(10, 60).unwrap();
    let kept = Work::ReleaseClaims { provider: spare, fragments: vec![fragment(77, 0)], asked: Asked(1) };
    assert!(jobs.iter().any(|job| job.work == kept), "{jobs:?}");
    let too_many =
        Work::ReleaseClaims { provider: spare, fragments: vec![fragment(0, 0); 1001], asked: Asked(1) };
    assert!(desk.add_job(too_many, Timestamp(0)).is_err());
}
