//! The README's first stack.

use std::path::Path;

use crate::sandbox::Sandbox;
use crate::wire::http;

#[test]
fn the_counter_counts_and_remembers() {
    let sandbox = Sandbox::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart");
    let text = fs_err::read_to_string(source.join("stack.yaml")).unwrap();
    sandbox.file("stack.yaml", &text);
    for entry in fs_err::read_dir(source.join("app")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            sandbox.file(
                &format!("app/{}", entry.file_name().to_string_lossy()),
                &fs_err::read_to_string(entry.path()).unwrap(),
            );
        }
    }
    let project = format!("-p {}", sandbox.project);
    sandbox.stack(&format!("{project} up -d --wait")).ok();
    let visits = || {
        let page = http("127.0.0.1:8080", "/").expect("the page");
        let (_, rest) = page.split_once("<b>").expect("a number");
        rest.split('<').next().unwrap().parse::<u32>().unwrap()
    };
    assert_eq!((visits(), visits()), (1, 2));
    sandbox.stack(&format!("{project} down")).ok();
    sandbox.stack(&format!("{project} up -d --wait")).ok();
    assert_eq!(visits(), 3, "the volume remembers");
}
