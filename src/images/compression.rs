//! Compressed streams, told by their first bytes.

use std::io::{self, BufRead, Read};

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Largest window of a zstd stream, as a power of two: 128 MiB.
const ZSTD_WINDOW: u32 = 27;

impl Compression {
    /// Media type of a layer so compressed.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// Decompresses a stream, one level. All members of a gzip stream and all frames of a zstd stream belong to it.
pub(super) fn decode<'a>(mut stream: impl BufRead + Send + 'a) -> io::Result<(Compression, Box<dyn Read + Send + 'a>)> {
    let mut start = Vec::new();
    while start.len() < 6 {
        // The few bytes may come in several pieces; they go in front again below.
        let piece = stream.fill_buf()?;
        if piece.is_empty() {
            break;
        }
        let n = piece.len().min(6 - start.len());
        start.extend_from_slice(&piece[..n]);
        stream.consume(n);
    }
    let compression = match start.as_slice() {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(unsupported("xz")),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => return Err(unsupported("bzip2")),
        _ => Compression::None,
    };
    let whole = io::Cursor::new(start).chain(stream);
    Ok(match compression {
        Compression::None => (compression, Box::new(whole)),
        Compression::Gzip => (compression, Box::new(flate2::bufread::MultiGzDecoder::new(whole))),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
            decoder.window_log_max(ZSTD_WINDOW)?;
            (compression, Box::new(decoder))
        }
    })
}

fn unsupported(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("{name} compression isn't supported: use gzip, zstd or none"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn plain(bytes: &[u8]) -> io::Result<(Compression, Vec<u8>)> {
        let (compression, mut stream) = decode(bytes)?;
        let mut out = Vec::new();
        stream.read_to_end(&mut out)?;
        Ok((compression, out))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn each_form_is_told_and_read() {
        assert_eq!(plain(b"plain text").unwrap(), (Compression::None, b"plain text".to_vec()));
        assert_eq!(plain(b"").unwrap(), (Compression::None, Vec::new()));
        assert_eq!(plain(&gzip(b"abc")).unwrap(), (Compression::Gzip, b"abc".to_vec()));
        let two = [gzip(b"abc"), gzip(b"def")].concat();
        assert_eq!(plain(&two).unwrap(), (Compression::Gzip, b"abcdef".to_vec()));
        let zstd = zstd::encode_all(&b"abc"[..], 1).unwrap();
        assert_eq!(plain(&zstd).unwrap(), (Compression::Zstd, b"abc".to_vec()));
        assert_eq!(plain(&[zstd.clone(), zstd].concat()).unwrap(), (Compression::Zstd, b"abcabc".to_vec()));
    }

    #[test]
    fn damage_is_an_error() {
        let mut bad = gzip(b"abc");
        assert!(plain(&bad[..bad.len() - 4]).is_err());
        let crc = bad.len() - 8;
        bad[crc] ^= 1;
        assert!(plain(&bad).is_err());
        let zstd = zstd::encode_all(&[1; 5000][..], 1).unwrap();
        assert!(plain(&zstd[..zstd.len() - 2]).is_err());
        assert!(plain(&[0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(plain(b"\xfd7zXZ\0rest").is_err() && plain(b"BZh9rest").is_err());
    }
}
