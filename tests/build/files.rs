//! Where COPY puts files, and that nothing leads out of a context or an image.

use crate::bed::{Bed, Outcome, has, same};

pub(crate) fn copy_places_as_docker(bed: &Bed) -> Outcome {
    for path in ["d/a.txt", "d/sub/b.txt", "d/sub/c.log", "e.txt", "skip/x", "skip/kept"] {
        bed.write(path, "x");
    }
    bed.write(".dockerignore", "skip\n!skip/kept\nDockerfile\nbusybox\n*.md\n");
    bed.write("no.md", "");
    std::os::unix::fs::symlink("a.txt", bed.context().join("d/link")).unwrap();
    let tree = |lines: &str| format!("FROM base\nRUN ln -s /www /linked\n{lines}\nRUN cd /t && find . | sort\n");
    let cases = [
        ("COPY d /t/", ". ./a.txt ./link ./sub ./sub/b.txt ./sub/c.log"),
        ("COPY d/sub /t", ". ./b.txt ./c.log"),
        ("COPY e.txt /t/", ". ./e.txt"),
        ("COPY e.txt /t/n", ". ./n"),
        ("WORKDIR /t\nCOPY e.txt .", ". ./e.txt"),
        ("WORKDIR /t\nCOPY e.txt d/sub x/", ". ./x ./x/b.txt ./x/c.log ./x/e.txt"),
        ("COPY *.txt d/*.txt /t/", ". ./a.txt ./e.txt"),
        ("COPY skip /t/", ". ./kept"),
        ("COPY --exclude=**/*.log --exclude=a* d /t/", ". ./link ./sub ./sub/b.txt"),
        ("COPY --parents d/sub/b.txt /t/", ". ./d ./d/sub ./d/sub/b.txt"),
        ("COPY --parents d/./sub/*.log /t/", ". ./sub ./sub/c.log"),
        ("COPY [\"d/link\", \"/t/\"]", ". ./link"),
        ("COPY e.txt /linked/\nRUN mkdir /t && mv /www/e.txt /t", ". ./e.txt"),
    ];
    for (lines, wanted) in cases {
        let out = bed.run(&tree(lines)).map_err(|e| format!("{lines}: {e}"))?;
        let got = out.split_whitespace().collect::<Vec<_>>().join(" ");
        same!((lines, got), (lines, wanted.to_owned()));
    }
    let failures = [
        ("COPY e.txt d /t", "several sources need a folder"),
        ("COPY * /t", "`/t` is not a folder"),
        ("COPY e.txt /www/index.html/x", "can't put a folder over"),
        ("COPY d /linked/../bin/sh", "can't put a folder over"),
        ("COPY no.md /t/", ".dockerignore leaves it out"),
        ("COPY nothing* /t/", "there is no `nothing*`"),
    ];
    for (lines, part) in failures {
        let message = bed.run(&tree(lines)).err().ok_or_else(|| format!("{lines}: no error"))?;
        has!(message, part);
        has!(message, "Dockerfile:3");
    }
    Ok(())
}

pub(crate) fn nothing_leads_out(bed: &Bed) -> Outcome {
    let canary = tempfile::tempdir().unwrap();
    let outside = canary.path().display();
    std::os::unix::fs::symlink("/etc/passwd", bed.context().join("link")).unwrap();
    let refused = [
        "FROM scratch\nCOPY ../../../etc/passwd /x\n",
        "FROM scratch\nCOPY link /x\n",
        "FROM base\nADD http://127.0.0.1:9/x /x\n",
        "FROM base\nRUN --security=insecure id\n",
        "FROM stack/host\nRUN true\n",
    ];
    for text in refused {
        bed.run(text).err().ok_or_else(|| format!("{text}: no error"))?;
    }
    let text = format!(
        "FROM base AS a\n\
         RUN ln -s / /r; ln -s ../../../..{outside} /w; mkdir /up; ln -s ../../../../../.. /up/up\n\
         WORKDIR /w/made\n\
         COPY group /up/up/{outside}/copied\n\
         RUN --mount=type=tmpfs,target=/d/x rm -rf /d 2>/dev/null; ln -s {outside} /d || true\n\
         RUN cat ../../../../etc/shadow 2>/dev/null || echo none\n\
         FROM base\n\
         RUN --mount=from=a,source=/r,target=/h cat /h/etc/group | head -1\n\
         COPY --from=a /r/etc/group /x\n\
         RUN cat /x | tail -1\n"
    );
    same!(bed.run(&text)?, "none\nroot:x:0:\nextra:x:2000:\n".to_owned());
    same!(std::fs::read_dir(canary.path()).unwrap().count(), 0);
    // A working directory that a descriptor of the runtime might stand behind.
    let leak = bed.run("FROM base\nWORKDIR /proc/self/fd/8\nRUN cat ../../../../etc/shadow 2>/dev/null || echo none\n");
    same!(leak.unwrap_or_else(|_| "none\n".to_owned()), "none\n".to_owned());
    Ok(())
}
