//! Builds with a real store and real RUN steps, each in a state root of its own; needs root and Debian's busybox-static.
//!
//! No harness: the builder starts its shim from this very binary, so `main` must look at its first argument before any
//! thread exists.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use stack::build::{BuildEvent, BuildRequest, ContextSource, Network, Secret, build};
use stack::images::{Image, Reference, Store};
use stack::runtime::shim;

type Outcome = Result<(), String>;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == shim::ARGUMENT) {
        shim::main(&args[1..]);
    }
    if !rustix::process::geteuid().is_root() || busybox().is_none() {
        println!("skipped: needs root and busybox-static");
        return;
    }
    stack::sys::process::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWNET).unwrap();
    stack::sys::mount::make_all_private().unwrap();
    let tests: [(&str, fn(&Bed) -> Outcome); 1] = [("base", base)];
    let wanted = |name: &str| args.iter().all(|arg| arg.starts_with('-') || name.contains(arg.as_str()));
    let mut failed = 0;
    for (name, test) in tests.into_iter().filter(|(name, _)| wanted(name)) {
        let outcome = test(&Bed::new());
        println!("test {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" });
        if let Err(message) = outcome {
            println!("{message}");
            failed += 1;
        }
    }
    std::process::exit(i32::from(failed > 0));
}

fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].iter().map(PathBuf::from).find(|path| path.exists())
}

/// A state root and a context.
struct Bed {
    folder: tempfile::TempDir,
    store: Store,
}

#[derive(Default)]
struct Seen {
    cached: usize,
    ran: usize,
    output: String,
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["lib", "run", "context"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::fs::copy(busybox().unwrap(), folder.path().join("context/busybox")).unwrap();
        let store = Store::open(&folder.path().join("lib")).unwrap();
        Self { folder, store }
    }

    fn context(&self) -> PathBuf {
        self.folder.path().join("context")
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.context().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn request(&self, dockerfile: &str) -> BuildRequest {
        BuildRequest {
            context: Some(self.context()),
            dockerfile_name: "Dockerfile".into(),
            dockerfile: dockerfile.to_owned(),
            lib: self.folder.path().join("lib"),
            run: self.folder.path().join("run"),
            network: Network::None,
            ..BuildRequest::default()
        }
    }

    fn build(&self, request: &BuildRequest) -> Result<(Image, Seen), String> {
        let seen = RefCell::new(Seen::default());
        let progress = |event: BuildEvent| match event {
            BuildEvent::Finished { cached, .. } => {
                seen.borrow_mut().cached += usize::from(cached);
                seen.borrow_mut().ran += usize::from(!cached);
            }
            BuildEvent::Output { line, .. } => {
                seen.borrow_mut().output += &line;
                seen.borrow_mut().output += "\n";
            }
            _ => {}
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let image = runtime.block_on(build(request, &self.store, &progress)).map_err(|e| e.to_string())?;
        Ok((image, seen.into_inner()))
    }
}

const BASE: &str = r#"
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "mkdir", "-p", "/etc", "/tmp", "/var", "/root", "/www", "/seed/dir"]
RUN ["/bin/busybox", "--install", "/bin"]
RUN chmod 1777 /tmp && echo index >/www/index.html \
 && echo one >/seed/a && echo two >/seed/dir/b && chown -R 1000:1000 /seed && chmod 750 /seed/dir
ENV PATH=/bin
CMD ["/bin/pause"]
"#;

fn base(bed: &Bed) -> Outcome {
    let mut request = bed.request(BASE);
    request.tags = vec!["behaviour/base".to_owned()];
    let (image, seen) = bed.build(&request)?;
    println!("{} cached {} ran {}", image.id, seen.cached, seen.ran);
    let t = std::time::Instant::now();
    let (again, seen) = bed.build(&request)?;
    println!("{} cached {} ran {} {:?}", again.id, seen.cached, seen.ran, t.elapsed());
    Ok(())
}
