//! `seedbank dataset ls`, `log` and `show`: what there is.

use crate::app::App;
use crate::output::{Align, bytes, table};
use crate::source::open;
use crate::target::Target;
use anyhow::bail;
use seedbank_catalog::Books;
use seedbank_client::home_dataset::HOME_DATASET_NAME;
use seedbank_formats::DatasetId;
use seedbank_formats::path::TreePath;
use seedbank_formats::tree::Entry;
use serde::Serialize;

#[derive(Serialize)]
struct DatasetLine {
    name: String,
    id: DatasetId,
    public: bool,
    versions: u64,
    sealed_bytes: u64,
    stored_bytes: u64,
    missing_fragments: u64,
}

pub(super) fn list_datasets(app: &App) -> anyhow::Result<()> {
    let books = app.books()?;
    let mut lines = Vec::new();
    for dataset in books.datasets()?.into_iter().filter(|dataset| dataset.name != HOME_DATASET_NAME) {
        let usage = books.usage(dataset.id)?;
        lines.push(DatasetLine {
            name: dataset.name,
            id: dataset.id,
            public: dataset.public,
            versions: usage.versions,
            sealed_bytes: usage.sealed_bytes,
            stored_bytes: usage.stored_bytes,
            missing_fragments: usage.missing_fragments,
        });
    }
    app.output.data(&lines, |lines| {
        let rows: Vec<Vec<String>> = lines
            .iter()
            .map(|line| {
                vec![
                    line.name.clone(),
                    line.versions.to_string(),
                    bytes(line.sealed_bytes),
                    bytes(line.stored_bytes),
                    if line.public { "public".to_owned() } else { "private".to_owned() },
                    line.id.short(),
                ]
            })
            .collect();
        table(
            &[
                ("name", Align::Left),
                ("versions", Align::Right),
                ("sealed", Align::Right),
                ("stored", Align::Right),
                ("who reads", Align::Left),
                ("id", Align::Left),
            ],
            &rows,
        )
    })?;
    Ok(())
}

#[derive(Serialize)]
struct FileLine {
    path: String,
    kind: &'static str,
    bytes: u64,
    executable: bool,
    sha256: Option<String>,
    target: Option<String>,
}

pub(super) async fn list_files(app: &App, name: &str) -> anyhow::Result<()> {
    let target = Target::parse(name)?;
    let below = target.path.clone().filter(|path| !path.is_empty());
    let below = below.map(|path| TreePath::parse(path.trim_end_matches('/'))).transpose()?;
    let opened = open(app, &target).await?;
    let mut listed = match &below {
        Some(path) => opened.snapshot.entries_at(&opened.reader, path.clone()),
        None => opened.snapshot.entries(&opened.reader),
    };
    // Line by line: a version may have more files than fit into memory, and whoever reads may soon have seen enough.
    let mut rows = app.output.rows();
    while let Some((path, entry)) = listed.next().await? {
        if rows.push(&FileLine::new(&path, &entry), FileLine::text)?.is_break() {
            return Ok(());
        }
    }
    if let (true, Some(path)) = (rows.is_empty(), below) {
        bail!("no such path in this version: {path}");
    }
    rows.finish()?;
    Ok(())
}

impl FileLine {
    fn new(path: &TreePath, entry: &Entry) -> FileLine {
        let (kind, executable, sha256, target) = match entry {
            Entry::File { executable, sha256, .. } => ("file", *executable, Some(sha256.to_string()), None),
            Entry::Folder => ("folder", false, None, None),
            Entry::Symlink { target } => ("symlink", false, None, Some(target.clone())),
        };
        FileLine { path: path.to_string(), kind, bytes: entry.size(), executable, sha256, target }
    }

    fn text(&self) -> String {
        let mark = match (self.kind, &self.target) {
            ("symlink", Some(target)) => format!("{} -> {target}", self.path),
            ("folder", _) => format!("{}/", self.path),
            _ => self.path.clone(),
        };
        format!("{:>12}  {mark}", self.bytes)
    }
}

#[derive(Serialize)]
struct LogLine {
    version: String,
    time: String,
    message: String,
    refs: Vec<String>,
    new_bytes: u64,
    stored_bytes: u64,
}

pub(super) async fn log(app: &App, name: &str) -> anyhow::Result<()> {
    let target = Target::version(name)?;
    let versions = crate::source::versions(app, &target.name).await?;
    let lines: Vec<LogLine> = versions
        .into_iter()
        .map(|logged| LogLine {
            version: logged.id.to_string(),
            time: logged.time.to_string(),
            message: logged.message,
            refs: logged.refs,
            new_bytes: logged.new_bytes,
            stored_bytes: logged.stored_bytes,
        })
        .collect();
    app.output.data(&lines, |lines| lines.iter().map(log_text).collect::<Vec<_>>().join("\n"))?;
    Ok(())
}

fn log_text(line: &LogLine) -> String {
    let refs = if line.refs.is_empty() { String::new() } else { format!(" ({})", line.refs.join(", ")) };
    let message = if line.message.is_empty() { "-" } else { &line.message };
    format!(
        "{}{refs}\n  {}  {} new, {} stored\n  {message}",
        &line.version[..40],
        line.time,
        bytes(line.new_bytes),
        bytes(line.stored_bytes)
    )
}

#[derive(Serialize)]
struct Shown {
    dataset: DatasetId,
    version: String,
    revision: String,
    parents: Vec<String>,
    author: String,
    time: String,
    message: String,
    tree: String,
    entries: u64,
    bytes: u64,
    segments: Vec<SegmentLine>,
}

#[derive(Serialize)]
struct SegmentLine {
    segment: u64,
    scheme: (usize, usize),
    sealed_bytes: u32,
    held: usize,
}

pub(super) async fn show(app: &App, name: &str) -> anyhow::Result<()> {
    let opened = open(app, &Target::version(name)?).await?;
    let version = &opened.snapshot.version;
    let segments = opened.snapshot.segments(&opened.reader).await?;
    let shown = Shown {
        dataset: version.dataset,
        version: opened.snapshot.id.to_string(),
        revision: opened.snapshot.id.revision(),
        parents: version.parents.iter().map(ToString::to_string).collect(),
        author: version.author.to_string(),
        time: version.time.to_string(),
        message: version.message.clone(),
        tree: version.tree.page.to_string(),
        entries: version.tree.entries,
        bytes: version.tree.bytes,
        segments: segments
            .iter()
            .map(|segment| SegmentLine {
                segment: segment.number.0,
                scheme: (segment.scheme.data(), segment.scheme.total()),
                sealed_bytes: segment.sealed_len,
                held: segment.holders().count(),
            })
            .collect(),
    };
    app.output.data(&shown, |shown| {
        let mut text = format!(
            "version   {}\ndataset   {}\nauthor    {}\ntime      {}\nmessage   {}\ntree      {}\nholds     {} entries, {}",
            shown.version,
            shown.dataset,
            shown.author,
            shown.time,
            shown.message,
            shown.tree,
            shown.entries,
            bytes(shown.bytes)
        );
        for parent in &shown.parents {
            text.push_str(&format!("\nparent    {parent}"));
        }
        for segment in &shown.segments {
            let (data, total) = segment.scheme;
            text.push_str(&format!(
                "\nsegment   {} of {}: {} fragments held, any {data} of {total} suffice",
                segment.segment,
                bytes(u64::from(segment.sealed_bytes)),
                segment.held
            ));
        }
        text
    })?;
    Ok(())
}
