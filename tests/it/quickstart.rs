//! The README's first stack.

use std::path::Path;

use crate::sandbox::Sandbox;
use crate::wire::http;

/// Writes the example's files into the project folder, below `folder`.
pub(crate) fn example(sandbox: &Sandbox, folder: &str) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart");
    let text = fs_err::read_to_string(source.join("stack.yaml")).unwrap();
    sandbox.file(&format!("{folder}stack.yaml"), &text);
    for entry in fs_err::read_dir(source.join("app")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            sandbox.file(
                &format!("{folder}app/{}", entry.file_name().to_string_lossy()),
                &fs_err::read_to_string(entry.path()).unwrap(),
            );
        }
    }
}

/// What its page counts.
pub(crate) fn visits() -> u32 {
    let page = http("127.0.0.1:8080", "/").expect("the page");
    let (_, rest) = page.split_once("<b>").expect("a number");
    rest.split('<').next().unwrap().parse().unwrap()
}

#[test]
fn the_counter_counts_and_remembers() {
    let sandbox = Sandbox::new();
    example(&sandbox, "");
    let project = format!("-p {}", sandbox.project);
    sandbox.stack(&format!("{project} up -d --wait")).ok();
    assert_eq!((visits(), visits()), (1, 2));
    sandbox.stack(&format!("{project} down")).ok();
    sandbox.stack(&format!("{project} up -d --wait")).ok();
    assert_eq!(visits(), 3, "the volume remembers");
}
