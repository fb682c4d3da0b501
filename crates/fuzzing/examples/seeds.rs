//! Writes the fuzzer's first inputs, `fuzz/corpus/TARGET/seed-*`, from the golden vectors in `testdata/`.
//!
//! `cargo run -p seedbank-fuzzing --example seeds`

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.trim().as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// The lines of a file of vectors that are a name and hex: names with bytes.
fn vectors(file: &str) -> Vec<(String, Vec<u8>)> {
    let text = fs::read_to_string(root().join("testdata").join(file)).expect("testdata is there");
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, hex)| Some((name.to_owned(), unhex(hex)?)))
        .collect()
}

fn write(target: &str, name: &str, selector: u8, bytes: &[u8]) {
    let folder = root().join("fuzz/corpus").join(target);
    fs::create_dir_all(&folder).expect("the corpus can be written");
    fs::write(folder.join(format!("seed-{selector}-{name}")), [&[selector][..], bytes].concat())
        .expect("the corpus can be written");
}

fn main() {
    let without_signature = |bytes: &[u8]| bytes[..bytes.len().saturating_sub(64)].to_vec();
    let signed = ["receipt-vectors.txt", "version.txt", "head.txt"];
    for (name, bytes) in signed.iter().flat_map(|file| vectors(file)) {
        let selector = match bytes.get(..4) {
            Some(b"SBRC") => 0,
            Some(b"SBRT") => 1,
            Some(b"SBST") => 2,
            Some(b"SBVN") => 3,
            Some(b"SBHD") => 4,
            _ if name == "body" => {
                write("signed", &name, 5, &bytes);
                continue;
            }
            _ => continue,
        };
        write("signed", &name, selector, &without_signature(&bytes));
    }
    for (name, bytes) in vectors("tree.txt") {
        if bytes.starts_with(b"SBTP") {
            // The page, then zeros up to where the second begins.
            let length = bytes.len().next_multiple_of(16);
            write("tree", &name, u8::try_from(length / 16).expect("vectors are short"), &bytes);
            write("tree", &format!("{name}-below"), 0, &bytes);
        }
    }
    let pages = ["manifest.txt", "layout.txt", "map.txt", "checkpoint.txt", "home-record.txt"];
    for (name, bytes) in pages.iter().flat_map(|file| vectors(file)) {
        for selector in 0..9 {
            write("pages", &name, selector, &bytes);
        }
    }
    for (name, bytes) in vectors("store-vectors.txt") {
        let file = ["marker", "journal", "volume"].iter().position(|known| *known == name);
        if let Some(file) = file {
            let file = if file == 2 { 3 } else { u8::try_from(file).expect("three files") };
            write("store", &name, 2, &[&[file][..], &bytes].concat());
        }
        write("store", &name, 1, &bytes);
        write("store", &name, 0, &[&[0; 9][..], &bytes].concat());
    }
    let segment = fs::read(root().join("testdata/segment-vector.bin")).expect("testdata is there");
    for selector in 0..6 {
        write("sealed", "segment", selector, &segment[..200]);
    }
    texts();
}

/// What is said about money.
fn payments(id: &str) {
    let (wallet, root) = (format!("0x{}", "0123456789".repeat(4)), format!("0x{id}"));
    let signature = format!("0x{}{}1b", "12".repeat(32), "34".repeat(32));
    let signed = |message: &str| format!(r#"{{"message":{message},"signature":"{signature}"}}"#);
    let set = format!(r#"{{"agreement":1,"sequence":2,"set_root":"{root}","size":7,"rate_per_epoch":"5"}}"#);
    let leaf = format!(r#"{{"fragment":"{id}","length":7,"retain_until":9}}"#);
    let quote = format!(
        r#"{{"provider":"{wallet}","prices":{{"rent_per_gib_month":"10","egress_per_gib":"0"}},"epochs_min":7,"expires":9,"credit_bytes":1}}"#
    );
    let proposal = format!(
        r#"{{"client":"{wallet}","provider":"{wallet}","set_root":"{root}","size":7,"rate_per_epoch":"1","end_epoch":9,"escrow":"9","retained_bytes":0,"retained_until":0,"accept_by":3,"nonce":"{root}"}}"#
    );
    let revision = format!(
        r#"{{"agreement":1,"sequence":2,"set_root":"{root}","size":7,"rate_per_epoch":"1","from_epoch":3,"end_epoch":9,"retained_bytes":0,"retained_until":0}}"#
    );
    let voucher =
        format!(r#"{{"payer":"{wallet}","payee":"{wallet}","signer":"{wallet}","cumulative":"12"}}"#);
    let messages = [
        format!(r#"{{"chain_id":199,"directory":"{wallet}","quote":{}}}"#, signed(&quote)),
        format!(r#"{{"proposal":{},"binding":"{}","added":[{leaf}]}}"#, signed(&proposal), "cd".repeat(64)),
        format!(r#"{{"accepted":{{"agreement":4,"transaction":"{root}"}}}}"#),
        format!(r#"{{"base_sequence":1,"added":[{leaf}],"removed":[],"revision":{}}}"#, signed(&revision)),
        format!(r#"{{"refused":{{"reason":"not_held","message":"no","own":{set},"fragments":["{id}"]}}}}"#),
        format!(r#"{{"set":{set},"leaves":[{leaf}]}}"#),
        format!(r#"{{"voucher":{}}}"#, signed(&voucher)),
        r#"{"accepted":{"owed":"1","prepaid":"0","credit_bytes":9}}"#.to_owned(),
    ];
    for (selector, text) in (0..).zip(&messages) {
        write("payments", "documented", selector, text.as_bytes());
    }
    let due = format!(
        r#"{{"code":"payment_required","message":"pay","payment":{{"owed":"7","needed":"5","credit_bytes":0,"payee":"{wallet}","egress_per_gib":"9"}}}}"#
    );
    write("messages", "payment-required", 1, due.as_bytes());
}

/// What is text on the wire or in a file.
fn texts() {
    let id = "0123456789abcdef".repeat(4);
    let requests = [
        (0, "GET\n/v1/hello".to_owned()),
        (0, format!("PUT\n/v1/fragments/{id}")),
        (0, format!("GET\n/v1/fragments/{id}/proof\nstart=0&end=16384")),
        (0, format!("GET\n/v1/claims\nafter={id}&limit=10")),
        (0, format!("PUT\n/v1/heads/{id}")),
        (1, "bytes=0-99".to_owned()),
        (2, "bytes 0-99/100".to_owned()),
        (3, "1900000000".to_owned()),
        (4, format!("Seedbank {id}")),
        (5, "1900000000123".to_owned()),
        (0, format!("GET\n/v1/set\nafter={id}&limit=10")),
        (0, "POST\n/v1/voucher".to_owned()),
        (6, "public".to_owned()),
        (6, id.clone()),
    ];
    for (number, (selector, text)) in requests.iter().enumerate() {
        write("requests", &number.to_string(), *selector, text.as_bytes());
    }
    let messages = [
        format!(
            r#"{{"protocol":"seedbank/1","features":["proofs"],"provider":"{id}","operator":"o","region":"eu","capacity_bytes":1,"free_bytes":1,"prices":{{"storage_per_gib_month":"1","retrieval_per_gib":"0"}},"accepting":"anyone"}}"#
        ),
        r#"{"code":"over_quota","message":"no","retry_after_s":3}"#.to_owned(),
        format!(r#"[{{"fragment":"{id}","action":{{"renew":9}}}},{{"fragment":"{id}","action":"release"}}]"#),
        format!(
            r#"[{{"fragment":"{id}","result":{{"receipt":"ab"}}}},{{"fragment":"{id}","result":"rotten"}}]"#
        ),
        format!(r#"[{{"fragment":"{id}","length":7,"until":9,"state":"confirmed"}}]"#),
    ];
    for (selector, text) in (0..).zip(&messages) {
        write("messages", "documented", selector, text.as_bytes());
    }
    payments(&id);
    write("names", "fields", 0, &[0, 1, 2, 3, 4, 5, 6, 7, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7]);
    write("names", "longer-varint", 0, &[4, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 1, 2, 3, 4, 5, 6, 7]);
    write("names", "time", 1, &[0xff; 8]);
    write("names", "path", 2, "folder/name\n../other".as_bytes());
    write("names", "ref", 3, b"main");
    write("names", "id", 4, id.as_bytes());
    let policy = r#"{"scheme":[4,8],"distinct":{"operators":"require","networks":"prefer","regions":"ignore"},"minimum":6}"#;
    write("names", "policy", 5, policy.as_bytes());

    write("home", "unprotected", 0, b"SBKS\x01");
    write("home", "address", 4, format!("{id}@provider.example:7450").as_bytes());
    write("home", "toml", 5, b"listen = \"127.0.0.1:7450\"\ncapacity = \"1 GiB\"\n");
    write("home", "index", 6, &[93, 0, 0, 0, 0, 0, 0, 0, 1, 1, 7, 7, 7]);
    let key =
        fs::read_to_string(root().join("testdata/keystore/dataset-key.txt")).expect("testdata is there");
    for line in key.lines() {
        write("home", "dataset-key", 3, line.as_bytes());
        if let Some(bytes) = line.strip_prefix("seedbank-dataset-key-1:").and_then(unhex) {
            write("home", "dataset-key", 2, &bytes[..bytes.len() - 8]);
        }
    }
    let file =
        fs::read_to_string(root().join("testdata/keystore/keys-sealed.txt")).expect("testdata is there");
    for (number, bytes) in
        file.split_whitespace().filter_map(unhex).filter(|bytes| bytes.len() > 64).enumerate()
    {
        write("home", &format!("sealed-{number}"), 0, &bytes);
    }

    let numbers =
        |numbers: [u64; 5]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    write("slices", "hostile", 0, &numbers([40_000, 100, 200, 0, 0]));
    write("slices", "honest", 1, &numbers([70_000, 20_000, 50_000, 12_345, 1]));
    write("slices", "end-of-numbers", 0, &numbers([u64::MAX, u64::MAX - 1, u64::MAX, 0, 0]));
    for (name, byte) in [("low", 1), ("mixed", 0x5a), ("high", 0xfe)] {
        write("store-exchange", name, byte, &[byte; 40]);
        write("read-exchange", name, byte, &[byte; 40]);
    }
}
