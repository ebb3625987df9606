"""Pictures for tests, made byte by byte, and a slow PNG decoder that owes nothing to ours."""

import struct
import zlib
from io import BytesIO
from random import Random

from PIL import Image

from maintenance.demo.pictures import ADAM7, photo, srgb_profile
from maintenance.images.outcomes import Broken, LeaveAlone
from maintenance.images.plan import Plan
from maintenance.images.recipe import SECOND
from maintenance.images.shrink import shrink

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
KINDS = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8),
         (4, 8), (4, 16), (6, 8), (6, 16)]
SIZE = (37, 29)
DEFAULT = frozenset({"icc", "orientation"})


def plan(png="oxipng", jpeg="mozjpeg", keep=DEFAULT, min_gain=0.005, **more):
    seconds = {"png_second": SECOND.get(png, png), "jpeg_second": SECOND.get(jpeg, jpeg), **more}
    return Plan(png=png, jpeg=jpeg, keep=frozenset(keep), min_gain=min_gain, **seconds)


def shrunk(data, **how):
    """The result, or why there is none."""
    try:
        return shrink(data, plan(**how))
    except (LeaveAlone, Broken) as reason:
        return f"{type(reason).__name__}: {reason}"


# --- PNG

def chunk(name, data=b""):
    check = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)


def chunks(data):
    """The (name, data) of a file."""
    found, at = [], 8
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        found.append((name, data[at + 8:at + 8 + length]))
        at += 12 + length
    return found


def named(data, name):
    return [body for found, body in chunks(data) if found == name]


def png(rows, colour, depth, interlaced=False, extras=(), level=0, filters=(0,)):
    """A PNG of rows of samples; ``extras``: chunks between the header and the pixels."""
    height, width = len(rows), len(rows[0]) // CHANNELS[colour]
    header = struct.pack(">2I5B", width, height, depth, colour, 0, 0, interlaced)
    coded, turn = b"", 0
    for left, top, right, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        before = b""
        for row in rows[top::down]:
            count = CHANNELS[colour]
            pixels = [row[at:at + count] for at in range(0, len(row), count)][left::right]
            packed = pack([value for pixel in pixels for value in pixel], depth)
            if packed:
                kind = filters[turn % len(filters)]
                turn += 1
                step = max(1, count * depth // 8)
                coded += bytes([kind]) + filtered(kind, packed, before, step)
                before = packed
    parts = [(b"IHDR", header), *extras, (b"IDAT", zlib.compress(coded, level)), (b"IEND", b"")]
    return SIGNATURE + b"".join(chunk(*part) for part in parts)


def pack(values, depth):
    bits = "".join(f"{value:0{depth}b}" for value in values)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8)) if bits \
        else b""


def filtered(kind, row, before, step, back=False):
    """Apply a filter to a row, or take it back."""
    before = before or bytes(len(row))
    out = bytearray()
    for at, value in enumerate(row):
        known = out if back else row
        a = known[at - step] if at >= step else 0
        b, c = before[at], before[at - step] if at >= step else 0
        p = a + b - c
        nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
        guess = (0, a, b, (a + b) // 2, nearest)[kind]
        out.append((value + guess if back else value - guess) & 255)
    return bytes(out)


def colours(data):
    """Every pixel as RGBA of 16 bits, row after row, by the letter of the specification."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">2I5B", named(data, b"IHDR")[0])
    raw = zlib.decompress(b"".join(named(data, b"IDAT")))
    count, found, at = CHANNELS[colour], {}, 0
    for left, top, right, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        wide = len(range(left, width, right))
        length, before = -(-wide * count * depth // 8), b""
        for y in range(top, height, down) if wide else ():
            before = filtered(raw[at], raw[at + 1:at + 1 + length], before,
                              max(1, count * depth // 8), back=True)
            at += 1 + length
            bits = "".join(f"{byte:08b}" for byte in before)
            values = [int(bits[i:i + depth], 2) for i in range(0, wide * count * depth, depth)]
            for x in range(wide):
                found[left + x * right, y] = values[x * count:(x + 1) * count]
    clear = b"".join(named(data, b"tRNS"))
    palette = b"".join(named(data, b"PLTE"))
    return (width, height), [meaning(found[x, y], colour, depth, palette, clear)
                             for y in range(height) for x in range(width)]


def meaning(values, colour, depth, palette, clear):
    if colour == 3:
        index = values[0]
        alpha = clear[index] if index < len(clear) else 255
        return tuple(v * 257 for v in (*palette[3 * index:3 * index + 3], alpha))
    top = 2**depth - 1
    wide = [value * 65535 // top for value in values]
    if colour in {4, 6}:
        return (wide[0],) * 3 + (wide[1],) if colour == 4 else tuple(wide)
    key = struct.unpack(f">{len(clear) // 2}H", clear)
    alpha = 0 if clear and tuple(values) == key else 65535
    return ((wide[0],) * 3 if colour == 0 else tuple(wide)) + (alpha,)


def samples(colour, depth, size=SIZE, seed=0):
    """Rows of samples that look a little like a picture: soft, with some noise."""
    chance, top = Random(seed), 2**depth - 1
    width, height = size
    return [[min(top, (x * (channel + 1) + y) * top // (4 * (width + height)) +
                 chance.randrange(1 + (depth > 2)) + ((top + 1) // 2 if x > y else 0))
             for x in range(width) for channel in range(CHANNELS[colour])] for y in range(height)]


def extras_for(colour, depth, clear=False):
    """The palette a kind needs, and transparency if it can have that."""
    extras = []
    if colour == 3:
        chance = Random(depth)
        extras.append((b"PLTE", chance.randbytes(3 * 2**depth)))
        if clear:
            extras.append((b"tRNS", bytes([0, 128])))
    elif clear and colour in {0, 2}:
        value = samples(colour, depth)[5][:CHANNELS[colour]]
        extras.append((b"tRNS", struct.pack(f">{len(value)}H", *value)))
    return extras


# --- JPEG

def jpeg(mode="RGB", size=(160, 120), **options):
    picture = photo(Random(1), size).convert(mode)
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=85, **options)
    return stream.getvalue()


def segment(marker, data):
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def with_segments(data, *parts):
    """Put segments behind the JFIF header."""
    at = 4 + struct.unpack_from(">H", data, 4)[0] if data[3] == 0xE0 else 2
    return data[:at] + b"".join(segment(*part) for part in parts) + data[at:]


def segments(data):
    """The (marker, data) up to the first scan."""
    found, at = [], 2
    while data[at + 1] != 0xDA:
        length = struct.unpack_from(">H", data, at + 2)[0]
        found.append((data[at + 1], data[at + 4:at + 2 + length]))
        at += 2 + length
    return found


def exif(entries, order="<"):
    """A TIFF block with these (tag, text or number)."""
    entries = sorted(entries)
    body, tail = b"", b""
    room = 8 + 2 + 12 * len(entries) + 4
    for tag, value in entries:
        if isinstance(value, int):
            body += struct.pack(order + "HHIHH", tag, 3, 1, value, 0)
        else:
            body += struct.pack(order + "HHII", tag, 2, len(value), room + len(tail))
            tail += value
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return (mark + struct.pack(order + "IH", 8, len(entries)) + body + bytes(4) + tail)


def pixels(data):
    image = Image.open(BytesIO(data))
    return image.mode, image.size, image.tobytes()


def icc_segments(profile=None, part=300):
    profile = srgb_profile() if profile is None else profile
    parts = [profile[at:at + part] for at in range(0, len(profile), part)]
    return [(0xE2, b"ICC_PROFILE\0" + bytes([number, len(parts)]) + one)
            for number, one in enumerate(parts, 1)]
