//! Small things that people and peers write: paths, names, ids, policies; and the codec that all formats stand on.

use crate::input::Input;
use seedbank_formats::checkpoint::RefName;
use seedbank_formats::codec::{Reader, Writer};
use seedbank_formats::path::TreePath;
use seedbank_formats::policy::Policy;
use seedbank_formats::{FragmentId, Signature, Timestamp};

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.below(6);
    if kind == 0 {
        return fields(input);
    }
    if kind == 1 {
        let text = Timestamp(input.number()).to_string();
        return assert!(text.ends_with('Z'), "a time is always shown");
    }
    let Ok(text) = str::from_utf8(input.rest()) else { return };
    match kind {
        2 => path(text),
        3 => {
            if let Ok(name) = text.parse::<RefName>() {
                assert_eq!(name.as_str(), text);
            }
        }
        4 => {
            if let Ok(id) = text.parse::<FragmentId>() {
                assert_eq!(id.to_string(), text.to_lowercase());
            }
            drop(text.parse::<Signature>());
        }
        _ => {
            if let Ok(policy) = serde_json::from_str::<Policy>(text) {
                let again = serde_json::to_string(&policy).expect("a policy has text keys");
                assert_eq!(serde_json::from_str::<Policy>(&again).ok(), Some(policy));
            }
        }
    }
}

fn path(text: &str) {
    let (text, target) = text.split_once('\n').unwrap_or((text, "../x"));
    let Ok(path) = TreePath::parse(text) else { return };
    assert_eq!(path.as_str(), text);
    assert_eq!(path.components().collect::<Vec<_>>().join("/"), text);
    for folder in path.folders() {
        assert!(path.is_below(&folder));
    }
    if path.check_symlink_target(target).is_ok() {
        let above = path.components().count() - 1;
        let ups = target.split('/').filter(|component| *component == "..").count();
        assert!(ups <= above && !target.starts_with('/'), "a link stays inside the tree");
    }
    drop(path.join(target));
}

/// Reads fields of any kinds, writes them again, and compares.
fn fields(mut input: Input<'_>) {
    let kinds: Vec<usize> = (0..8).map(|_| input.below(8)).collect();
    let bytes = input.rest();
    let mut reader = Reader::bare("fields", bytes);
    let mut writer = Writer::default();
    for kind in kinds {
        let read = match kind {
            0 => reader.u8().map(|value| writer.u8(value)),
            1 => reader.bool().map(|value| writer.bool(value)),
            2 => reader.u32().map(|value| writer.u32(value)),
            3 => reader.u64().map(|value| writer.u64(value)),
            4 => reader.varint().map(|value| writer.varint(value)),
            5 => reader.bytes("bytes", 64).map(|value| writer.bytes(value)),
            6 => reader.str("text", 64).map(|value| writer.str(value)),
            _ => reader.count("things", 64, 2).map(|value| writer.len(value)),
        };
        if read.is_err() {
            return;
        }
    }
    let read = bytes.len() - reader.remaining();
    assert_eq!(writer.finish(), bytes[..read], "fields have one encoding");
}
