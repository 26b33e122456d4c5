//! The reference's own parser cases, and texts that no parser should stumble over.

use std::fmt::Write;
use std::path::PathBuf;

use proptest::prelude::*;

use super::Dockerfile;
use super::lines::{self, Source};
use super::statement::{self, Args, Statement};

/// The folder of test data beside the repository, if this machine has it.
fn corpus(folder: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let found = [root.join("../shared"), root.join("../../shared")]
        .into_iter()
        .map(|shared| shared.join("corpus/docker/dockerfile-parser").join(folder))
        .find(|path| path.is_dir());
    if found.is_none() {
        println!("skipped: no {folder} beside the repository");
    }
    found
}

fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

fn dump(statement: &Statement) -> String {
    let mut text = format!("({}", statement.keyword.to_lowercase());
    if !statement.flags.is_empty() {
        let flags: Vec<String> = statement.flags.iter().map(|flag| quote(flag)).collect();
        let _ = write!(text, " [{}]", flags.join(" "));
    }
    match &statement.args {
        Args::Json(list) | Args::Words(list) => {
            for word in list {
                let _ = write!(text, " {}", quote(word));
            }
        }
        Args::Pairs(pairs) => {
            for (name, value, joined) in pairs {
                let sign = if *joined { "=" } else { "" };
                let _ = write!(text, " {} {} {}", quote(name), quote(value), quote(sign));
            }
        }
        Args::Nested(inner) => {
            let _ = write!(text, " {}", dump(inner));
        }
    }
    text + ")"
}

#[test]
fn statements_are_those_of_the_reference() {
    let Some(folder) = corpus("testfiles") else { return };
    let mut cases = 0;
    for entry in fs_err::read_dir(folder).unwrap() {
        let case = entry.unwrap().path();
        let text = fs_err::read_to_string(case.join("Dockerfile")).unwrap();
        let wanted = fs_err::read_to_string(case.join("result")).unwrap();
        let lines = lines::split(&Source::new("Dockerfile", &text)).unwrap();
        let dumped: Vec<String> =
            lines.all.iter().map(|line| dump(&statement::parse(&line.text, lines.escape).unwrap())).collect();
        let wanted: Vec<&str> = wanted.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(dumped, wanted, "{}", case.display());
        cases += 1;
    }
    assert!(cases > 25, "{cases}");
}

#[test]
fn what_the_reference_refuses_is_refused() {
    let Some(folder) = corpus("testfiles-negative") else { return };
    for entry in fs_err::read_dir(folder).unwrap() {
        let case = entry.unwrap().path();
        let text = fs_err::read_to_string(case.join("Dockerfile")).unwrap();
        Dockerfile::parse("Dockerfile", &text).unwrap_err();
    }
}

#[test]
fn lines_are_counted_through_continuations() {
    let Some(folder) = corpus("testfile-line") else { return };
    let text = fs_err::read_to_string(folder.join("Dockerfile")).unwrap();
    let lines = lines::split(&Source::new("Dockerfile", &text)).unwrap();
    assert_eq!(lines.all.iter().map(|line| line.start).collect::<Vec<_>>(), [5, 11, 17]);
}

#[test]
fn a_mistake_shows_its_line_and_a_remedy() {
    let message = |text: &str| Dockerfile::parse("Dockerfile", text).unwrap_err().to_string();
    assert_eq!(
        message("FROM scratch\n\nCOYP a b\n"),
        "Dockerfile:3: there is no instruction `COYP`\n     3 | COYP a b\n  hint: did you mean COPY?"
    );
    assert!(message("FROM a\nRUN <<EOF\necho\n").contains("not closed"));
    assert!(message("FROM a\nCOPY --frm=x a b\n").contains("has no flag --frm"));
    assert!(message("FROM a\nONBUILD ONBUILD RUN x\n").contains("ONBUILD ONBUILD"));
    assert!(message("FROM a\nRUN --security=insecure id\n").contains("not allowed"));
    assert!(message("# syntax=evil.invalid/frontend:latest\nFROM scratch\n").contains("frontend"));
    assert!(message("RUN x\n").contains("before the first FROM"));
    assert!(message(&("FROM a\n".to_owned() + &"ENV a=b\n".repeat(20_000))).contains("instructions"));
    Dockerfile::parse("Dockerfile", "# syntax=docker/dockerfile:1.7-labs\nFROM scratch\n").unwrap();
    Dockerfile::parse("Dockerfile", "\u{feff}FROM a\r\nRUN a \\\r\n  b\r\n").unwrap();
}

#[test]
fn heredocs_are_taken_out() {
    let text = "FROM a\nRUN <<EOF cat >/x && sh <<-'B'\none $x\nEOF\n\ttwo\n\tB\nCOPY <<\"F.txt\" <<G /d/\nf\nF.txt\ng\nG\nUSER me\n";
    let file = Dockerfile::parse("Dockerfile", text).unwrap();
    let super::instruction::Kind::Run(run) = &file.instructions[1].kind else { panic!() };
    assert_eq!(run.heredocs.len(), 2);
    assert!(run.heredocs[0].expand && !run.heredocs[1].expand);
    assert_eq!(run.heredocs[1].chomped(), "two\n");
    let super::instruction::Kind::Copy(copy) = &file.instructions[2].kind else { panic!() };
    assert_eq!(copy.documents.iter().map(|doc| doc.name.as_str()).collect::<Vec<_>>(), ["F.txt", "G"]);
    assert_eq!(file.instructions[3].line, 12);
}

proptest! {
    #[test]
    fn never_panics(text in "(FROM|RUN|COPY|ENV|HEALTHCHECK|ONBUILD|ARG|#|# escape=`| |\n|\\\\\n|<<E|E\n|--mount=type=|--from=a|,id=|\"|'|\\[|\\]|=|\\$\\{|a|é|\u{feff}|\r\n){0,60}") {
        let _ = Dockerfile::parse("Dockerfile", &text);
    }
}
