//! Disks that rot, fill up or are not there.

use crate::support::{MIB, client_key, fragment, options, refusal, start, start_in};
use rustix::mount::{MountFlags, UnmountFlags};
use seedbank_formats::receipt::Answer;
use seedbank_protocol::messages::{ClaimAction, ClaimRequest, ClaimState, ProblemCode};
use seedbank_protocol::routes::Access;
use seedbank_provider::{ByteSize, RunError, init};
use seedbank_store::OpenError;
use seedbank_transport::ClaimOutcome;
use std::ffi::CString;
use std::path::{Path, PathBuf};

#[tokio::test]
async fn rot_is_admitted_with_a_signature_and_never_renewed() {
    let provider = start().await;
    let client = provider.client();
    for (seed, length) in [(1, 5_000), (2, 2 * MIB)] {
        let stored = fragment(seed, length);
        client.put(&stored, Access::Owner).await.unwrap();
        provider.rot(&stored.1, 40);
        // Plain ranges are for the reader to check.
        match client.get(&stored, None).await {
            Ok(bytes) => assert_ne!(bytes, stored.1),
            refused => assert_eq!(refusal(refused), ProblemCode::Rotten),
        }
        let proof = client.client.get_proof(&client.peer, stored.0, 0..100, None).await.unwrap();
        assert_eq!(proof.statement.answer, Answer::Rotten);
        assert_eq!(proof.statement.provider, provider.serving.key);
        assert_eq!(refusal(client.get(&stored, None).await), ProblemCode::Rotten);

        let until = crate::support::tomorrow().plus_seconds(86_400);
        let renew = [ClaimRequest { fragment: stored.0, action: ClaimAction::Renew(until) }];
        let outcomes = client.client.claims(&client.peer, &renew).await.unwrap();
        assert_eq!(outcomes, [ClaimOutcome::Rotten]);
        let rows = client.client.list_claims(&client.peer, None, 10).await.unwrap();
        assert_eq!(rows.iter().find(|row| row.fragment == stored.0).unwrap().state, ClaimState::Rotten);

        // Sent again, it is whole again.
        client.put(&stored, Access::Owner).await.unwrap();
        assert_eq!(client.get(&stored, None).await.unwrap(), stored.1);
    }
}

#[tokio::test]
async fn missing_disk_is_noticed_at_the_start() {
    let provider = start().await;
    let (dir, _folder) = provider.stop().await;
    let (data, away) = (dir.join("data"), dir.join("away"));
    std::fs::rename(&data, &away).unwrap();
    assert!(matches!(start_in(&dir).await, Err(RunError::Data(_))));
    // What a provider sees of a disk that is not mounted.
    std::fs::create_dir(&data).unwrap();
    assert!(matches!(start_in(&dir).await, Err(RunError::Store(OpenError::NoMarker))));
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&away, &data).unwrap();
    start_in(&dir).await.unwrap();
}

/// A small file system of its own; unmounted when this is dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// `None`, with the reason printed, where this user may not mount.
    fn mount(path: &Path, bytes: usize) -> Option<Tmpfs> {
        std::fs::create_dir(path).unwrap();
        let size = CString::new(format!("size={bytes}")).unwrap();
        match rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), Some(size.as_c_str())) {
            Ok(()) => Some(Tmpfs(path.to_owned())),
            Err(error) => {
                eprintln!("skipped: can't mount a tmpfs: {error}");
                None
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: whatever still has it open keeps it until then.
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn full_disk_refuses_more_serves_on_and_takes_releases() {
    let folder = tempfile::tempdir().unwrap();
    let Some(tmpfs) = Tmpfs::mount(&folder.path().join("disk"), 24 * MIB) else {
        return;
    };
    let dir = tmpfs.0.join("provider");
    let mut options = options();
    options.reserve = ByteSize(4 << 20);
    options.clients = vec![(client_key().public(), ByteSize(1 << 30))];
    init(&dir, &options).unwrap();
    let provider = start_in(&dir).await.unwrap();
    let client = provider.client();

    let mut held = Vec::new();
    let refused = loop {
        let stored = fragment(u64::try_from(held.len()).unwrap(), 2 * MIB);
        match client.put(&stored, Access::Owner).await {
            Ok(_) => held.push(stored),
            refused => break refusal(refused),
        }
        assert!(held.len() < 12, "a full disk takes no more");
    };
    assert_eq!(refused, ProblemCode::DiskFull);
    assert!(held.len() >= 5, "{}", held.len());
    for stored in &held {
        assert_eq!(client.get(stored, None).await.unwrap(), stored.1);
    }

    let release = [ClaimRequest { fragment: held[0].0, action: ClaimAction::Release }];
    assert_eq!(client.client.claims(&client.peer, &release).await.unwrap(), [ClaimOutcome::Released]);
    // What lies in trash makes room as soon as room is wanted.
    let new = fragment(99, 2 * MIB);
    let taken = async {
        while let Err(error) = client.put(&new, Access::Owner).await {
            assert_eq!(refusal(Err::<(), _>(error)), ProblemCode::DiskFull);
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), taken).await.expect("trash makes room");
    assert_eq!(client.get(&new, None).await.unwrap(), new.1);
    provider.stop().await;
}
