#!/usr/bin/env python3
"""Makes OCI image layouts that no builder makes: layout.py OUT shapes [COMPRESSION]|platforms|plain LAYERS BYTES."""
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile

OUT = sys.argv[1]
BLOBS = os.path.join(OUT, "blobs/sha256")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def blob(data, kind, **more):
    digest = hashlib.sha256(data).hexdigest()
    with open(os.path.join(BLOBS, digest), "wb") as file:
        file.write(data)
    return {"mediaType": kind, "digest": "sha256:" + digest, "size": len(data), **more}


def document(value, kind, **more):
    return blob(json.dumps(value).encode(), kind, **more)


def compressed(plain, how):
    if how == "gzip":
        return gzip.compress(plain, 1, mtime=0), LAYER + "+gzip"
    if how == "zstd":
        return subprocess.run(["zstd", "-q", "-1", "-c"], input=plain, stdout=-1, check=True).stdout, LAYER + "+zstd"
    return plain, LAYER


def image(layers, config=None, **more):
    """A manifest of layers, each a pair of an archive and its compression."""
    described = [blob(*compressed(plain, how)) for plain, how in layers]
    diff_ids = ["sha256:" + hashlib.sha256(plain).hexdigest() for plain, _ in layers]
    own = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    own.update(config or {})
    config = document(own, "application/vnd.oci.image.config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described}
    return document(manifest, MANIFEST, **more)


def finish(*entries):
    with open(os.path.join(OUT, "index.json"), "w") as file:
        json.dump({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, file)


def named(name):
    return {"annotations": {"org.opencontainers.image.ref.name": name}}


class Archive:
    def __init__(self):
        self.bytes = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.bytes, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name, kind=tarfile.REGTYPE, content=b"", mode=0o644, pax=None, **fields):
        member = tarfile.TarInfo(name)
        member.type, member.size, member.mode, member.mtime = kind, len(content), mode, 1700000000
        member.pax_headers = pax or {}
        for field, value in fields.items():
            setattr(member, field, value)
        self.tar.addfile(member, io.BytesIO(content))

    def done(self):
        self.tar.close()
        return self.bytes.getvalue()


def busybox():
    archive = Archive()
    with open("/bin/busybox", "rb") as file:
        archive.add("bin/busybox", content=file.read(), mode=0o755)
    for applet in ["sh", "cat", "stat", "ls", "test", "sleep"]:
        archive.add("bin/" + applet, tarfile.SYMTYPE, linkname="busybox")
    return archive.done()


def xattr(name, value):
    return {"SCHILY.xattr." + name: value.decode("utf-8", "surrogateescape")}


def shapes(only=None):
    below = Archive()
    below.add("a/", tarfile.DIRTYPE, mode=0o1777)
    for name in ["a/kept", "a/gone", "a/old/hidden"]:
        below.add(name, content=name.encode())
    below.add("target", content=b"from below", mode=0o4755, uid=1234, gid=5678)
    capability = bytes([1, 0, 0, 2, 0, 4, 0, 0] + [0] * 12)  # cap_net_bind_service, effective and permitted
    below.add("capable", mode=0o755, pax=xattr("security.capability", capability))
    below.add("noted", pax=xattr("user.note", b"kept"))
    entries = [(1, 6, -1), (2, 4, 1000), (4, 4, -1), (16, 4, -1), (32, 4, -1)]
    acl = b"\x02\0\0\0" + b"".join(
        tag.to_bytes(2, "little") + rights.to_bytes(2, "little") + (who & 0xFFFFFFFF).to_bytes(4, "little")
        for tag, rights, who in entries
    )
    below.add("listed", pax=xattr("system.posix_acl_access", acl))
    below.add("nodes/char", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3)
    below.add("nodes/block", tarfile.BLKTYPE, mode=0o600, devmajor=7, devminor=99)
    below.add("nodes/fifo", tarfile.FIFOTYPE, mode=0o622)
    below.add("/".join(["n" * 250] * 12), content=b"deep")
    below.add("far", tarfile.SYMTYPE, linkname="x" * 3000)
    below.add("fraction", mtime=1600000000.25)
    above = Archive()
    above.add("linked", tarfile.LNKTYPE, linkname="target")
    above.add("a/.wh.gone")
    above.add("a/old/.wh..wh..opq")
    above.add("a/old/new", content=b"new")
    with open(os.path.join(OUT, "sparse"), "wb") as file:
        file.truncate(64 << 20)
        file.seek(5 << 20)
        file.write(b"island")
    os.utime(os.path.join(OUT, "sparse"), (1700000000, 1700000000))
    sparse = [
        subprocess.run(["tar", "-C", OUT, "-S", "--format=" + form, f"--transform=s/^/{form}-/", "-cf", "-", "sparse"], stdout=-1, check=True).stdout
        for form in ["gnu", "pax"]
    ]
    os.remove(os.path.join(OUT, "sparse"))
    layers = [(busybox(), "gzip"), (below.done(), "gzip"), (above.done(), "zstd"), (Archive().done(), "gzip")]
    layers += [(sparse[0], "none"), (sparse[1], "gzip")]
    finish(image([(plain, only or how) for plain, how in layers], **named("shapes")))


def platforms():
    def one(os_name, architecture, variant=None):
        archive = Archive()
        archive.add("which", content="/".join(filter(None, [os_name, architecture, variant])).encode())
        platform = {"os": os_name, "architecture": architecture}
        if variant:
            platform["variant"] = variant
        return image([(archive.done(), "gzip")], platform, platform=platform)

    known = [("linux", "arm", "v6"), ("linux", "arm", "v7"), ("linux", "arm64", "v8"), ("linux", "amd64"), ("linux", "s390x"), ("windows", "amd64")]
    entries = [one(*platform) for platform in known]
    attestation = image([(Archive().done(), "gzip")], {"os": "unknown", "architecture": "unknown"}, platform={"os": "unknown", "architecture": "unknown"})
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [attestation] + entries}
    finish(document(index, INDEX, **named("platforms")))


def plain(count, size):
    layers = []
    for number in range(int(count)):
        archive = Archive()
        archive.add(f"file{number}", content=os.urandom(int(size)))
        archive.add(f"folder{number}/", tarfile.DIRTYPE, mode=0o755)
        archive.add(f"folder{number}/link", tarfile.SYMTYPE, linkname=f"../file{number}")
        layers.append((archive.done(), "gzip"))
    finish(image(layers, **named("plain")))


os.makedirs(BLOBS)
with open(os.path.join(OUT, "oci-layout"), "w") as file:
    file.write('{"imageLayoutVersion":"1.0.0"}')
{"shapes": shapes, "platforms": platforms, "plain": plain}[sys.argv[2]](*sys.argv[3:])
