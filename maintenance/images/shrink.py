"""One image made smaller, inside a worker."""

from collections.abc import Callable

from maintenance.images import chunks, jpeg, png, segments, tools
from maintenance.images.chunks import Png
from maintenance.images.outcomes import Broken, LeaveAlone
from maintenance.images.pictures import shown_by_jpeg, shown_by_png
from maintenance.images.plan import Plan
from maintenance.images.segments import Jpeg
from maintenance.images.verify import Different, same_jpeg, same_png

LEAST = 64  # bytes that a replacement has to save, unless metadata have to go
TOO_SMALL = 2000  # bytes below which coding anew is not worth its time


def shrink(data: bytes, plan: Plan) -> bytes:
    """Return a smaller file that shows the same; raises LeaveAlone or Broken."""
    if data.startswith(segments.START + b"\xff"):
        return _jpeg(data, plan)
    if data.startswith(chunks.MAGIC):
        return _png(data, plan)
    if data.startswith(b"GIF8"):
        raise LeaveAlone("a GIF")
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        raise LeaveAlone("a WebP")
    raise LeaveAlone("not a JPEG or PNG")


def _jpeg(data: bytes, plan: Plan) -> bytes:
    if plan.jpeg == "off":
        raise LeaveAlone("off in the configuration")
    original = segments.parse(data)
    jpeg.admit(original)
    if original.pixels > plan.allowance.pixels:
        raise LeaveAlone("too many pixels")
    shown = shown_by_jpeg(original)
    bare, kept = jpeg.stripped(original, ()), jpeg.stripped(original, plan.keep)
    results = [bytes(kept)]
    # One that is progressive has had its gain.
    if len(data) >= TOO_SMALL and original.frame.marker != segments.PROGRESSIVE:
        coded = _coded_jpeg(bytes(bare), plan.jpeg)
        if coded is not None:
            results.append(bytes(jpeg.with_coding_of(kept, coded)))
    return _best(data, results, original.extras != kept.extras, plan,
                 lambda result: same_jpeg(original, shown, result, plan.keep))


def _coded_jpeg(bare: bytes, tool: str) -> Jpeg | None:
    coded = b""
    if tool == "mozjpeg":
        coded = tools.by_mozjpeg(bare)
    elif tool == "jpegtran":
        coded = tools.by_jpegtran(bare)
    try:
        return segments.parse(coded) if coded.startswith(segments.START) else None
    except (Broken, LeaveAlone):
        return None


def _png(data: bytes, plan: Plan) -> bytes:
    if plan.png == "off":
        raise LeaveAlone("off in the configuration")
    original = chunks.parse(data)
    png.admit(original)
    header = original.header
    wide = header.depth == 16
    if header.width * header.height > plan.allowance.pixels or header.raw > plan.allowance.raw:
        raise LeaveAlone("too many pixels")
    if wide and header.raw > plan.allowance.deep:
        raise LeaveAlone("too many pixels for 16 bits a colour")
    kept = png.stripped(original, plan.keep)
    if kept.strange:
        raise LeaveAlone("a PNG of a rare kind")
    shown = shown_by_png(original, wide=wide)
    results = [bytes(kept)]
    if len(data) >= TOO_SMALL:
        coded = _coded_png(kept, plan)
        if coded is not None:
            results.append(bytes(png.assembled(coded, kept.metadata)))
    must = kept.told("all") != original.told("all")
    return _best(data, results, must, plan,
                 lambda result: same_png(original, shown, result, plan.keep))


def _coded_png(kept: Png, plan: Plan) -> Png | None:
    bare = bytes(png.assembled(kept, ()))
    # A profile for grey fits no colours, nor one for colours grey.
    freedom = tools.Freedom(not kept.all(*chunks.OF_SAMPLES), not kept.all(b"iCCP"))
    coded = b""
    if plan.png == "oxipng":
        coded = tools.by_oxipng(bare, freedom, plan.allowance.raw)
    elif plan.png == "optipng":
        coded = tools.by_optipng(bare, freedom)
    try:
        return chunks.parse(coded) if coded.startswith(chunks.MAGIC) else None
    except (Broken, LeaveAlone):
        return None


def _best(data: bytes, results: list[bytes], must: bool, plan: Plan,
          check: Callable[[bytes], None]) -> bytes:
    """Return the smallest result that passes, when it is worth it or metadata must go."""
    least = 1 if must else max(LEAST, plan.min_gain * len(data))
    refused = "nothing to gain"
    for result in sorted(results, key=len):
        if len(data) - len(result) < least:
            break
        try:
            check(result)
        except Different:
            refused = "no result that shows the same"
        else:
            return result
    raise LeaveAlone(refused)
