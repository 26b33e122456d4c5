//! Maps of sparse files.

use super::{header, pax};

/// A run of data in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where in the file it starts.
    pub(crate) offset: u64,
    /// Its length in bytes.
    pub(crate) len: u64,
}

/// More runs than any file that a writer meant.
pub(super) const MAX_SEGMENTS: usize = 1 << 20;

type Why = &'static str;

const MALFORMED: Why = "its sparse map is malformed";

/// Segments of a GNU header or of one of its continuation blocks: 24 bytes each, the unused ones empty.
pub(super) fn read_blocks(bytes: &[u8], into: &mut Vec<Segment>) -> Result<(), Why> {
    let (entries, _) = bytes.as_chunks::<24>();
    for entry in entries.iter().take_while(|entry| entry[0] != 0) {
        let part =
            |field| header::number(field).ok().and_then(|n| i64::try_from(n).ok()?.try_into().ok()).ok_or(MALFORMED);
        into.push(Segment { offset: part(&entry[..12])?, len: part(&entry[12..])? });
    }
    if into.len() > MAX_SEGMENTS { Err(MALFORMED) } else { Ok(()) }
}

/// `offset,length,offset,length…` (PAX format 0.1).
pub(super) fn read_map(value: &[u8]) -> Result<Vec<Segment>, Why> {
    let numbers: Vec<u64> = match value {
        b"" => Vec::new(),
        _ => value.split(|&b| b == b',').map(pax::decimal).collect::<Result<_, _>>()?,
    };
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(MALFORMED);
    }
    Ok(pairs.iter().map(|&[offset, len]| Segment { offset, len }).collect())
}

/// Checks that segments ascend, stay within the file and add up to the data there is.
pub(super) fn check(segments: &[Segment], stored: u64, real: u64) -> Result<(), Why> {
    let mut end = 0;
    let mut sum = 0_u64;
    for segment in segments {
        if segment.offset < end {
            return Err(MALFORMED);
        }
        end = segment.offset.checked_add(segment.len).ok_or(MALFORMED)?;
        sum += segment.len;
    }
    if end <= real && sum == stored { Ok(()) } else { Err("its sparse map doesn't fit its size") }
}
