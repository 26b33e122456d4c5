//! A state root and a context for each test, gone afterwards.

use std::cell::RefCell;
use std::path::PathBuf;

use stack::build::{BuildEvent, BuildRequest, Network, build};
use stack::images::{Image, Store};

/// What a test says: nothing, or what is wrong.
pub(crate) type Outcome = Result<(), String>;

/// The image that most tests build on: a static busybox with its applets.
pub(crate) const BASE: &str = r#"
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "mkdir", "-p", "/etc", "/tmp", "/var", "/root", "/www", "/seed/dir"]
RUN ["/bin/busybox", "--install", "/bin"]
COPY passwd group /etc/
RUN chmod 1777 /tmp && echo index >/www/index.html \
 && echo one >/seed/a && echo two >/seed/dir/b && chown -R 1000:1000 /seed && chmod 750 /seed/dir
ENV PATH=/bin
CMD ["/bin/pause"]
"#;

/// Fails with both values unless they are equal.
macro_rules! same {
    ($got:expr, $wanted:expr) => {
        let (got, wanted) = (&$got, &$wanted);
        if got != wanted {
            return Err(format!("{}:{}: {got:?}\n  instead of {wanted:?}", file!(), line!()));
        }
    };
}

/// Fails unless a text has a part.
macro_rules! has {
    ($text:expr, $part:expr) => {
        let (text, part): (&str, &str) = (&$text, $part);
        if !text.contains(part) {
            return Err(format!("{}:{}: no `{part}` in:\n{text}", file!(), line!()));
        }
    };
}

pub(crate) use {has, same};

/// A static busybox of the machine.
pub(crate) fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].iter().map(PathBuf::from).find(|path| path.exists())
}

/// A state root and a context.
pub(crate) struct Bed {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: Store,
}

/// What a build told.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) cached: usize,
    pub(crate) ran: usize,
    pub(crate) output: String,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["lib", "run", "context"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let store = Store::open(&folder.path().join("lib")).unwrap();
        let bed = Self { folder, store };
        std::fs::copy(busybox().unwrap(), bed.context().join("busybox")).unwrap();
        bed.write("passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/tmp:/bin/sh\n");
        bed.write("group", "root:x:0:\napp:x:1000:\nextra:x:2000:\n");
        let mut request = bed.request(BASE);
        request.tags = vec!["base".to_owned()];
        bed.build(&request).map(drop).unwrap();
        bed
    }

    pub(crate) fn context(&self) -> PathBuf {
        self.folder.path().join("context")
    }

    /// Writes a file of the context.
    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.context().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// A request without a network, which most tests don't need.
    pub(crate) fn request(&self, dockerfile: &str) -> BuildRequest {
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

    pub(crate) fn build(&self, request: &BuildRequest) -> Result<(Image, Seen), String> {
        let seen = RefCell::new(Seen::default());
        let progress = |event: BuildEvent| match event {
            BuildEvent::Finished { cached, .. } => {
                let mut seen = seen.borrow_mut();
                seen.cached += usize::from(cached);
                seen.ran += usize::from(!cached);
            }
            BuildEvent::Output { line, .. } => seen.borrow_mut().output += &(line + "\n"),
            _ => {}
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let image = runtime.block_on(build(request, &self.store, &progress)).map_err(|e| e.to_string())?;
        Ok((image, seen.into_inner()))
    }

    /// The output of a build.
    pub(crate) fn run(&self, dockerfile: &str) -> Result<String, String> {
        self.build(&self.request(dockerfile)).map(|(_, seen)| seen.output)
    }

    /// The output of a shell in an image.
    pub(crate) fn shell(&self, image: &str, script: &str) -> Result<String, String> {
        let shell = r#"["/bin/busybox", "sh", "-c"]"#;
        self.run(&format!("FROM {image}\nSHELL {shell}\nWORKDIR /\nUSER 0\nRUN {script}\n"))
    }
}
