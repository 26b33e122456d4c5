use std::io::{Read as _, Write as _};

use proptest::prelude::*;

use super::*;

fn entry(name: &[u8], kind: Kind) -> Entry {
    let mtime = Time { seconds: 1_700_000_000, nanos: 0 };
    Entry { name: name.to_vec(), kind, mode: 0o644, uid: 0, gid: 0, mtime, xattrs: Vec::new(), size: 0, sparse: None }
}

fn body(reader: &mut Reader<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let bytes = reader.data().unwrap();
        if bytes.is_empty() {
            return out;
        }
        out.extend_from_slice(bytes);
        let n = bytes.len();
        reader.consume(n);
    }
}

fn any_entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let name =
        prop::collection::vec(1_u8.., 1..300).prop_filter("a file has no slash at its end", |n| !n.ends_with(b"/"));
    let kind = prop_oneof![
        Just(Kind::File),
        Just(Kind::Directory),
        Just(Kind::Fifo),
        prop::collection::vec(1_u8.., 1..200).prop_map(Kind::Symlink),
        prop::collection::vec(1_u8.., 1..200).prop_map(Kind::Hardlink),
        (0_u32..4096, 0_u32..1 << 20).prop_map(|(major, minor)| Kind::Char { major, minor }),
    ];
    let xattrs = prop::collection::btree_map("user\\.[a-z]{1,9}", prop::collection::vec(any::<u8>(), 0..50), 0..3);
    let data = prop::collection::vec(any::<u8>(), 0..2000);
    let ids = (0..u32::MAX, 0..u32::MAX, 0..0o10000_u32, -(1_i64 << 40)..1 << 40);
    (name, kind, xattrs, data, ids).prop_map(|(name, kind, xattrs, mut data, (uid, gid, mode, seconds))| {
        if kind != Kind::File {
            data.clear();
        }
        let xattrs = xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
        let mtime = Time { seconds, nanos: 0 };
        (Entry { name, kind, mode, uid, gid, mtime, xattrs, size: data.len() as u64, sparse: None }, data)
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(members in prop::collection::vec(any_entry(), 0..6)) {
        let mut writer = Writer::new(Vec::new());
        for (entry, data) in &members {
            writer.entry(entry).unwrap();
            writer.write_all(data).unwrap();
        }
        let archive = writer.finish().unwrap();
        let mut reader = Reader::new(archive.as_slice());
        for (entry, data) in &members {
            let read = reader.next().unwrap().unwrap();
            prop_assert_eq!(&read, entry);
            prop_assert_eq!(&body(&mut reader), data);
        }
        prop_assert!(reader.next().unwrap().is_none());
    }

    #[test]
    fn another_reader_sees_the_same(mut members in prop::collection::vec(any_entry(), 0..6)) {
        for (entry, _) in &mut members {
            // That reader takes a newline for the end of a PAX record.
            entry.name.iter_mut().filter(|b| **b == b'\n').for_each(|b| *b = b'n');
            entry.xattrs.clear();
            if let Kind::Symlink(link) | Kind::Hardlink(link) = &mut entry.kind {
                link.iter_mut().filter(|b| **b == b'\n').for_each(|b| *b = b'n');
            }
        }
        let mut writer = Writer::new(Vec::new());
        for (entry, data) in &members {
            writer.entry(entry).unwrap();
            writer.write_all(data).unwrap();
        }
        let archive = writer.finish().unwrap();
        let mut other = ::tar::Archive::new(archive.as_slice());
        let mut count = 0;
        for (theirs, (entry, data)) in other.entries().unwrap().zip(&members) {
            let mut theirs = theirs.unwrap();
            let name = theirs.path_bytes().into_owned();
            prop_assert_eq!(&name, &entry.name);
            if let Kind::Symlink(target) | Kind::Hardlink(target) = &entry.kind {
                let link = theirs.link_name_bytes().unwrap().into_owned();
                prop_assert_eq!(&link, target);
            }
            let mut read = Vec::new();
            theirs.read_to_end(&mut read).unwrap();
            prop_assert_eq!(&read, data);
            count += 1;
        }
        prop_assert_eq!(count, members.len());
    }

    #[test]
    fn noise_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..3000), member in any_entry(), at in 0_usize..600) {
        let mut writer = Writer::new(Vec::new());
        writer.entry(&member.0).unwrap();
        writer.write_all(&member.1).unwrap();
        let mut archive = writer.finish().unwrap();
        let flip = at % archive.len();
        archive[flip] ^= 0x41;
        archive.append(&mut bytes);
        let mut reader = Reader::new(archive.as_slice());
        while let Ok(Some(_)) = reader.next() {}
    }
}

#[test]
fn same_members_give_same_bytes() {
    let make = || {
        let mut writer = Writer::new(Vec::new());
        writer.entry(&entry(b"d", Kind::Directory)).unwrap();
        writer.entry(&Entry { size: 3, ..entry(b"d/f", Kind::File) }).unwrap();
        writer.write_all(b"abc").unwrap();
        writer.finish().unwrap()
    };
    assert_eq!(make(), make());
    assert_eq!(make().len() % BLOCK, 0);
}

#[test]
fn a_body_must_have_its_size() {
    let mut writer = Writer::new(Vec::new());
    writer.entry(&Entry { size: 3, ..entry(b"f", Kind::File) }).unwrap();
    writer.write_all(b"ab").unwrap();
    assert!(writer.finish().is_err());
}

/// All formats in which GNU tar writes sparse files.
#[test]
fn sparse_files_of_gnu_tar() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let file = fs_err::File::create(&path).unwrap();
    for at in [1_u64 << 20, 3 << 20, 9 << 20] {
        std::os::unix::fs::FileExt::write_all_at(file.file(), &[7; 5000], at).unwrap();
    }
    file.set_len(20 << 20).unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let output = std::process::Command::new("tar")
            .args(["--sparse", "-c", "-C"])
            .arg(directory.path())
            .args(format)
            .arg("s")
            .output()
            .unwrap();
        assert!(output.status.success());
        let mut reader = Reader::new(output.stdout.as_slice());
        let entry = reader.next().unwrap().unwrap();
        assert_eq!((entry.name.as_slice(), entry.size), (&b"s"[..], 20 << 20), "{format:?}");
        let segments = entry.sparse.unwrap();
        let data = body(&mut reader);
        let mut whole = vec![0; 20 << 20];
        let mut at = 0;
        for segment in segments {
            let (from, len) = (usize::try_from(segment.offset).unwrap(), usize::try_from(segment.len).unwrap());
            whole[from..from + len].copy_from_slice(&data[at..at + len]);
            at += len;
        }
        assert_eq!(at, data.len());
        assert_eq!(whole, fs_err::read(&path).unwrap(), "{format:?}");
        assert!(reader.next().unwrap().is_none());
    }
}
