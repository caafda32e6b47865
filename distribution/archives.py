"""Archives whose bytes depend on names and contents alone.

Entries are sorted, have one date, one owner and one of two modes, and are stored without
compression: what a compressor writes depends on its version, and these bytes must not.
"""

import io
import struct
import tarfile
import time
import zipfile
import zlib

EARLIEST_OF_ZIP = 315532800  # 1980-01-01
LARGEST_BLOCK = 0xFFFF


def mode_of(mode):
    """The mode of a file, of which only the permission of its owner to run it is kept."""
    return 0o755 if mode & 0o100 else 0o644


def normalise_wheel(source, target, epoch):
    """Writes a wheel again, its metadata after the modules and the record of its files last."""
    date = time.gmtime(max(epoch, EARLIEST_OF_ZIP))[:6]

    def rank(entry):
        folder = entry.filename.split("/")[0]
        return folder.endswith(".dist-info"), entry.filename.endswith("/RECORD"), entry.filename

    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in sorted(old.infolist(), key=rank):
            if entry.is_dir():
                continue
            clean = zipfile.ZipInfo(entry.filename, date)
            clean.create_system = 3  # Unix, whose modes follow
            clean.external_attr = (0o100000 | mode_of(entry.external_attr >> 16)) << 16
            new.writestr(clean, old.read(entry))


def normalise_sdist(source, target, epoch):
    """Writes a source distribution again."""
    with tarfile.open(source) as old:
        files = [entry for entry in old.getmembers() if entry.isfile()]
        named = {entry.name: (entry.mode, old.extractfile(entry).read) for entry in files}
        write_tar_gz(target, named, epoch)


def tar_gz_of_folder(folder, target, epoch):
    """Packs a folder under its own name."""
    named = {
        path.relative_to(folder.parent).as_posix(): (path.stat().st_mode, path.read_bytes)
        for path in folder.rglob("*")
        if path.is_file()
    }
    write_tar_gz(target, named, epoch)


def write_tar_gz(target, named, epoch):
    """Writes files, given by name as pairs of mode and a function that reads the contents."""
    uncompressed = target.with_suffix("")
    with tarfile.open(uncompressed, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, (mode, read) in sorted(named.items()):
            contents = read()
            entry = tarfile.TarInfo(name)
            entry.mode, entry.mtime, entry.size = mode_of(mode), epoch, len(contents)
            tar.addfile(entry, io.BytesIO(contents))
    with uncompressed.open("rb") as tar, target.open("wb") as compressed:
        write_gzip(tar, compressed)
    uncompressed.unlink()


def write_gzip(source, target):
    """Wraps a stream in gzip's format (RFC 1952), in stored blocks (RFC 1951, 3.2.4)."""
    checksum = size = 0
    target.write(b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff")
    while block := source.read(LARGEST_BLOCK):
        target.write(struct.pack("<BHH", 0, len(block), len(block) ^ 0xFFFF) + block)
        checksum, size = zlib.crc32(block, checksum), size + len(block)
    target.write(struct.pack("<BHHII", 1, 0, 0xFFFF, checksum, size % 2**32))
