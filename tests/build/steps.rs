//! What instructions do, and when a step is taken from the cache.

use std::collections::BTreeMap;

use stack::build::{ContextSource, Network, Secret};

use crate::bed::{BASE, Bed, Outcome, has, same};

pub(crate) fn an_unchanged_build_starts_nothing(bed: &Bed) -> Outcome {
    let mut request = bed.request(BASE);
    request.tags = vec!["base".to_owned(), "other:1".to_owned()];
    let first = bed.store.find("base").unwrap().unwrap();
    let run = bed.folder.path().join("run");
    std::fs::remove_dir_all(&run).unwrap();
    let (again, seen) = bed.build(&request)?;
    same!(again.id, first.id);
    same!((seen.cached, seen.ran), (6, 0));
    same!(run.exists(), false);
    same!(bed.store.find("other:1").unwrap().map(|image| image.id), Some(first.id));
    request.no_cache = true;
    let (_, seen) = bed.build(&request)?;
    same!(seen.ran, 5);
    let out = bed.shell("base", "ls -a / && stat -c %u:%a /seed/dir && cat /seed/dir/b")?;
    let top = ". .. bin dev etc proc root seed sys tmp var www";
    same!(out.split_whitespace().collect::<Vec<_>>().join(" "), format!("{top} 1000:750 two"));
    Ok(())
}

pub(crate) fn instructions(bed: &Bed) -> Outcome {
    bed.write("f1", "one\n");
    bed.write("f2", "two\n");
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(7);
    header.set_mode(0o640);
    header.set_uid(5);
    header.set_gid(0);
    tar.append_data(&mut header, "p", &b"packed\n"[..]).unwrap();
    let tar = tar.into_inner().unwrap();
    std::fs::write(bed.context().join("data.tar"), &tar).unwrap();
    std::fs::write(bed.context().join("data.tar.zst"), zstd::encode_all(&tar[..], 3).unwrap()).unwrap();
    let text = r#"
ARG BASE=scratch
FROM ${BASE} AS one
SHELL ["/bin/sh", "-ec"]
ENV A=1 B="two words" C=${UNSET:-dflt}
ENV D=$A$B
LABEL l1=x l2="y z"
RUN <<END
echo heredoc >/h
echo "$D" >>/h
END
COPY <<END <<'RAW' /inline/
a=$A "$B"
END
a=$A
RAW
ADD data.tar /unpacked/
ADD data.tar.zst /unpacked2
COPY data.tar /kept
COPY --chmod=640 --chown=app:extra f* /files/
RUN echo 'line with \
continuation' >/cont && \
    # a comment inside
    true
RUN <<END
#!/bin/awk -f
BEGIN { print "script" > "/script" }
END
FROM one
ARG BASE
ARG LATE=late
COPY --from=0 /h /h2
COPY --from=one --link /inline/END /inline2
WORKDIR rel
USER app
WORKDIR deeper
USER root
RUN pwd >/wd; echo "$BASE $LATE" >/args
ENTRYPOINT ["sh", "-c"]
CMD ["exec /bin/pause"]
"#;
    let mut request = bed.request(text);
    request.args.insert("BASE".to_owned(), "base".to_owned());
    request.labels.insert("from".to_owned(), "request".to_owned());
    request.tags = vec!["it".to_owned()];
    let (image, _) = bed.build(&request)?;
    let script = "cat /h /h2 /inline/END /inline/RAW /inline2 /unpacked/p /unpacked2/p /cont /script /wd /args; \
                  stat -c %u:%g:%a:%n /files/* /unpacked/p /rel/deeper; ls /kept; echo \"$B|$C\"";
    let wanted = "heredoc\n1two words\nheredoc\n1two words\na=1 \"two words\"\na=$A\na=1 \"two words\"\npacked\npacked\n\
                  line with continuation\nscript\n/rel/deeper\nbase late\n1000:2000:640:/files/f1\n1000:2000:640:/files/f2\n\
                  5:0:640:/unpacked/p\n1000:1000:755:/rel/deeper\n/kept\ntwo words|dflt\n";
    same!(bed.shell("it", script)?, wanted.to_owned());
    let config = &image.config.config;
    same!(config.labels.values().collect::<Vec<_>>(), ["x", "y z", "request"]);
    same!(config.entrypoint.as_deref(), Some(&["sh".to_owned(), "-c".to_owned()][..]));
    let layers = image.config.history.iter().filter(|entry| !entry.empty_layer).count();
    same!(layers, image.layers.len());
    let (again, seen) = bed.build(&request)?;
    same!((again.id, seen.ran), (image.id, 0));
    Ok(())
}

pub(crate) fn targets_and_contexts(bed: &Bed) -> Outcome {
    let text = "FROM base AS common\nRUN echo common >/kind\nFROM common AS dev\nRUN echo dev >>/kind\n\
                FROM common AS unused\nRUN false\nFROM common AS prod\nCOPY --from=dev /kind /from-dev\nRUN echo prod >>/kind\n";
    for (target, wanted) in [("dev", "common\ndev\n"), ("prod", "common\nprod\n")] {
        let mut request = bed.request(text);
        request.target = Some(target.to_owned());
        request.tags = vec![target.to_owned()];
        bed.build(&request)?;
        same!(bed.shell(target, "cat /kind")?, wanted.to_owned());
    }
    same!(bed.shell("prod", "cat /from-dev")?, "common\ndev\n".to_owned());
    bed.write("extra/note", "noted\n");
    let mut request = bed.request(
        "FROM parent\nCOPY --from=extra note /note\nCOPY --from=basis /www/index.html /copied\n\
         RUN cat /note /copied /etc/hosts\n",
    );
    request.context = None;
    request.additional_contexts = BTreeMap::from([
        ("parent".to_owned(), ContextSource::Image("base".to_owned())),
        ("basis".to_owned(), ContextSource::Image("base".to_owned())),
        ("extra".to_owned(), ContextSource::Directory(bed.context().join("extra"))),
    ]);
    request.extra_hosts = vec![("build.test".to_owned(), "10.9.8.7".parse().unwrap())];
    let (_, seen) = bed.build(&request)?;
    has!(seen.output, "noted\nindex\n");
    has!(seen.output, "10.9.8.7\tbuild.test");
    // What an image keeps for later is done by the one built on it.
    let mut request = bed.request("FROM base\nONBUILD COPY extra/note /later\nONBUILD RUN cat /later\n");
    request.tags = vec!["later".to_owned()];
    same!(bed.build(&request)?.1.output, String::new());
    same!(bed.run("FROM later\n")?, "noted\n".to_owned());
    Ok(())
}

pub(crate) fn content_decides_over_the_cache(bed: &Bed) -> Outcome {
    let write = |content: &str, seconds: u64| {
        bed.write("f", content);
        let file = std::fs::File::options().write(true).open(bed.context().join("f")).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
    };
    write("1", 1);
    let text = "FROM base AS a\nARG V\nCOPY f /f\nRUN echo $V\nFROM base\nCOPY --from=a /f /g\nRUN true\n";
    let steps = |args: &[(&str, &str)]| {
        let mut request = bed.request(text);
        request.args = args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        bed.build(&request).map(|(image, seen)| (image.id, seen.ran))
    };
    let (first, _) = steps(&[])?;
    same!(steps(&[])?, (first, 0));
    // Times say nothing, content and modes do.
    write("1", 2);
    same!(steps(&[])?, (first, 0));
    write("2", 3);
    same!(steps(&[])?.1, 4);
    write("1", 1);
    same!(steps(&[])?, (first, 0));
    // The last stage takes the same file from a stage that was run again.
    same!(steps(&[("V", "1")])?.1, 1);
    same!(steps(&[("HTTP_PROXY", "http://proxy.invalid")])?, (first, 0));
    // Without their layers, records count for nothing; the RUNs that changed nothing have none to lose.
    bed.store.collector(|| Ok(Vec::new())).unwrap().prune(false, None).unwrap();
    same!(steps(&[])?.1, 2);
    Ok(())
}

pub(crate) fn health_and_configuration(bed: &Bed) -> Outcome {
    let text = "FROM base\n\
                HEALTHCHECK --interval=1m --timeout=3s --start-period=5s --start-interval=1s --retries=4 CMD test -e /x\n\
                EXPOSE 80 53/udp\nVOLUME [\"/data\"]\nSTOPSIGNAL SIGQUIT\nUSER app\nMAINTAINER me\n";
    let (image, _) = bed.build(&bed.request(text))?;
    let config = &image.config.config;
    let check = config.healthcheck.clone().unwrap();
    same!(check.test, ["CMD-SHELL", "test -e /x"]);
    same!((check.interval, check.retries), (60_000_000_000, 4));
    same!(config.cmd.as_deref(), Some(&["/bin/pause".to_owned()][..]));
    let written = (config.user.as_str(), config.stop_signal.as_str(), image.config.author.as_str());
    same!(written, ("app", "SIGQUIT", "me"));
    // What only the configuration has changes the image, and runs nothing again.
    let (plain, _) = bed.build(&bed.request("FROM base\nRUN true\n"))?;
    let (other, seen) = bed.build(&bed.request("FROM base\nHEALTHCHECK NONE\nRUN true\n"))?;
    same!(seen.ran, 0);
    same!(plain.id == other.id, false);
    Ok(())
}

pub(crate) fn mounts(bed: &Bed) -> Outcome {
    bed.write("dir/f", "from context\n");
    let cached = "FROM base\nARG N\n\
                  RUN --mount=type=cache,target=/cache,mode=0700,uid=5,sharing=locked echo $N >>/cache/log; \
                  cat /cache/log; stat -c %u:%a /cache\n";
    let mut request = bed.request(cached);
    for (n, wanted) in [("1", "1\n5:700\n"), ("2", "1\n2\n5:700\n")] {
        request.args.insert("N".to_owned(), n.to_owned());
        same!(bed.build(&request)?.1.output, wanted.to_owned());
    }
    let text = "FROM base AS other\nRUN echo other >/o\nFROM base\n\
                RUN --mount=type=bind,source=dir,target=/src cat /src/f; touch /src/x 2>/dev/null || echo read-only\n\
                RUN --mount=type=bind,source=dir,target=/src,rw echo new >/src/f && cat /src/f\n\
                RUN --mount=from=other,target=/other cat /other/o\n\
                RUN --mount=from=other,source=/o,target=/o cat /o\n\
                RUN --mount=type=tmpfs,target=/mem,size=1m df -k /mem | tail -1 | awk '{print $2}'\n\
                RUN --mount=type=secret,id=s cat /run/secrets/s; stat -c %a /run/secrets/s\n\
                RUN --mount=type=secret,id=s,env=TOKEN echo \"$TOKEN\"\n\
                RUN --mount=type=secret,id=absent ls /run/secrets 2>/dev/null; ls -d /src /other /o /mem /run /cache 2>/dev/null; echo -\n";
    let mut request = bed.request(text);
    request.secrets.insert("s".to_owned(), Secret(b"hidden\n".to_vec()));
    let (image, seen) = bed.build(&request)?;
    let wanted = "from context\nread-only\nnew\nother\nother\n1024\nhidden\n400\nhidden\n\n-\n";
    same!(seen.output, wanted.to_owned());
    same!(format!("{:?}", image.config).contains("hidden"), false);
    same!(std::fs::read_to_string(bed.context().join("dir/f")).unwrap(), "from context\n".to_owned());
    let message = bed.run("FROM base\nRUN --mount=type=secret,id=no,required=true true\n").unwrap_err();
    has!(message, "the secret `no` was not given");
    Ok(())
}

pub(crate) fn ways_out(bed: &Bed) -> Outcome {
    let script = "ip -o addr | awk '{print $2}' | sort | uniq; ip route | wc -l";
    let mut request = bed.request(&format!("FROM base\nRUN {script}\n"));
    same!(bed.build(&request)?.1.output, "lo\n0\n".to_owned());
    request.network = Network::Default;
    let (_, seen) = bed.build(&request)?;
    same!(seen.output, "eth0\nlo\n2\n".to_owned());
    let mut request = bed.request("FROM base\nRUN --network=host ip route | wc -l\n");
    request.network = Network::Host;
    same!(bed.build(&request)?.1.output, "0\n".to_owned());
    let links = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    same!(links.contains("stb") || links.contains("stv"), false);
    has!(bed.run("FROM base\nRUN --network=host true\n").unwrap_err(), "not allowed");
    Ok(())
}

pub(crate) fn mistakes_name_their_line(bed: &Bed) -> Outcome {
    let failing = "FROM base\n\nRUN echo before; sleep 0.1; echo why >&2; exit 7\n";
    let cases = [
        (failing, "Dockerfile:3: RUN failed with exit code 7\n     3 | RUN echo"),
        ("FROM base\nRUN exit 3\n", "hint:"),
        ("FROM base\nRUN [\"/nope\"]\n", "exit code 127"),
        ("FROM base\nRUN [\"/etc/group\"]\n", "exit code 126"),
        ("FROM nowhere/none:1\n", "`nowhere/none:1` is not in the store"),
        ("FROM base\nCOPY --from=none:1 /a /b\n", "`none:1` is not in the store"),
        ("FROM base\nCOPY --chown=nobody passwd /x\n", "has no user `nobody`"),
        ("ARG X\nFROM $X\n", "declare `ARG X`"),
        ("FROM base\nENV A=${B:?needed}\n", "B: needed"),
        ("FROM base\nEXPOSE x\n", "not a port"),
        ("FROM base\nCOPY nope /x\n", "it has busybox, group, passwd"),
        ("FROM --platform=linux/s390x base\n", "can't be built"),
    ];
    for (text, part) in cases {
        let message = bed.run(text).err().ok_or_else(|| format!("{text}: no error"))?;
        has!(message, part);
        has!(message, "Dockerfile:");
    }
    has!(bed.run(failing).unwrap_err(), "> before\n  > why\n");
    same!(std::fs::read_dir(bed.folder.path().join("lib/build/tmp")).unwrap().count(), 0);
    same!(std::fs::read_dir(bed.folder.path().join("run/build")).map_or(0, Iterator::count), 0);
    Ok(())
}

pub(crate) fn certificates_are_seen_and_not_kept(bed: &Bed) -> Outcome {
    let file = "FROM base\nENV PIP_CERT=own\nRUN cat $SSL_CERT_FILE $APT_CONFIG && echo $PIP_CERT && env >/seen\n";
    let mut request = bed.request(file);
    let (plain, _) = bed.build(&bed.request("FROM base\nENV PIP_CERT=own\nRUN echo none\n"))?;
    request.certificates = Some(b"the company's\n".to_vec());
    let (image, seen) = bed.build(&request)?;
    has!(seen.output, "the company's\nAcquire::https::CAInfo \"/run/stack/certificates.pem\";\nown\n");
    same!(image.config.config.env, plain.config.config.env);
    request.certificates = Some(b"others\n".to_vec());
    let (again, seen) = bed.build(&request)?;
    same!((again.id, seen.ran), (image.id, 0));
    let left = bed.run(&format!("FROM {}\nRUN ls -A /run /run/stack 2>&1 || true\n", image.id))?;
    same!(left.contains("certificates"), false);
    Ok(())
}
