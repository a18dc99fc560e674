//! `quittance packages …`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use quittance_api::v1::{self, download_package_response::Part};

use quittance_client::RecordJoiner;

use super::{evidence::Named, missing};
use crate::{
    args::Global,
    failure::{Done, End, Failure},
    files::Draft,
    output::{Output, note},
    view,
};

/// Of a message: what is on the way between us may bound them.
const PART_BYTES: i32 = 2 << 20;

#[derive(Subcommand)]
pub enum Command {
    /// What a request's package holds, and whether it waits for review.
    Get(Named),
    /// Releases a package that waits for review, with or without the records that hold third parties' data (Art. 15(4)).
    Review(Review),
    /// Downloads a released package as JSON Lines: a header, the records, a trailer.
    #[command(after_help = "Example:\n  quittance packages download 0199b7a4-… --customer acme --out package.jsonl")]
    Download(Download),
}

#[derive(Args)]
#[group(id = "decision", required = true, multiple = false)]
struct Decision {
    /// Leave out the records that hold third parties' data.
    #[arg(long)]
    withhold_third_party: bool,
    /// Release everything.
    #[arg(long)]
    release_all: bool,
}

#[derive(Args)]
pub struct Review {
    #[command(flatten)]
    request: Named,
    #[command(flatten)]
    decision: Decision,
}

#[derive(Args)]
pub struct Download {
    #[command(flatten)]
    request: Named,
    /// Where to; `-` is standard output. A file appears only when it is whole, readable by you alone.
    #[arg(long, default_value = "-")]
    out: PathBuf,
}

fn package_name(named: &Named) -> Result<String, Failure> {
    let name = named.name()?;
    Ok(if name.ends_with("/package") { name } else { format!("{name}/package") })
}

fn show(package: Option<v1::Package>, out: &mut Output) -> Done {
    let package = view::Package::from(missing(package)?);
    if out.is_json() {
        out.document(&package)?;
    } else {
        out.table(&package.fields())?;
    }
    Ok(End::Fine)
}

/// Where the records go: straight out, or into a file.
enum Target<'a> {
    Stdout(&'a mut Output),
    File(Draft),
}

impl<'a> Target<'a> {
    fn open(path: &Path, out: &'a mut Output) -> Result<Self, Failure> {
        if path.as_os_str() == "-" { Ok(Self::Stdout(out)) } else { Draft::open(path).map(Self::File) }
    }

    fn put(&mut self, part: &view::PackagePart) -> Result<(), Failure> {
        match self {
            Self::Stdout(out) => out.json_line(part),
            Self::File(draft) => draft.put(|file| {
                serde_json::to_writer(&mut *file, part)?;
                file.write_all(b"\n")
            }),
        }
    }

    fn whole(self) -> Result<(), Failure> {
        match self {
            Self::Stdout(_) => Ok(()),
            Self::File(draft) => draft.whole(),
        }
    }

    fn cut(self) {
        if let Self::File(draft) = self {
            draft.cut();
        }
    }
}

async fn copy(
    mut parts: tonic::Streaming<v1::DownloadPackageResponse>,
    target: &mut Target<'_>,
) -> Result<u64, Failure> {
    let (mut records, mut joiner) = (0, RecordJoiner::default());
    while let Some(message) = parts.message().await? {
        let (line, trailer) = match missing(message.part)? {
            Part::Header(header) => (header.into(), None),
            Part::Record(record) => (record.into(), None),
            Part::RecordPart(part) => {
                let Some(record) = joiner.put(part) else { continue };
                (record.into(), None)
            }
            Part::Trailer(trailer) => {
                let count = trailer.record_count;
                (trailer.into(), Some(count))
            }
        };
        records += u64::from(matches!(line, view::PackagePart::Record(_)));
        target.put(&line)?;
        match trailer {
            Some(count) if count == records => return Ok(records),
            Some(_) => break,
            None => {}
        }
    }
    Err(Failure::Other("the package was cut on the way: download it again".to_owned()))
}

pub async fn run(command: Command, global: &Global, out: &mut Output) -> Done {
    match command {
        Command::Get(named) => {
            let request = v1::GetPackageRequest { name: package_name(&named)? };
            let client = global.connect().await?;
            show(client.packages().get_package(request).await?.into_inner().package, out)
        }
        Command::Review(review) => {
            let request = v1::ReviewPackageRequest {
                name: package_name(&review.request)?,
                withhold_third_party: review.decision.withhold_third_party,
            };
            let client = global.connect().await?;
            show(client.packages().review_package(request).await?.into_inner().package, out)
        }
        Command::Download(download) => {
            let name = package_name(&download.request)?;
            let request = v1::DownloadPackageRequest { name, record_bytes_max: PART_BYTES };
            let client = global.connect().await?;
            let parts = client.packages().download_package(request).await?.into_inner();
            let mut target = Target::open(&download.out, out)?;
            match copy(parts, &mut target).await {
                Ok(records) => {
                    target.whole()?;
                    note(&format!("{records} records"));
                    Ok(End::Fine)
                }
                Err(failure) => {
                    target.cut();
                    Err(failure)
                }
            }
        }
    }
}
