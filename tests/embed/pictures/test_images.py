"""Real photographs in every format, and files made to do harm."""

from __future__ import annotations

import io
import pickle
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from safetyfilter.batches import FAILURES, Unreadable
from safetyfilter.embed.pictures import images, lumas, turbo
from safetyfilter.embed.pictures.headers import DEFAULT_LIMITS, ONE_LARGE_PICTURE, DecodeLimits
from safetyfilter.embed.pictures.images import ImagePreparer
from safetyfilter.embed.pictures.inputs import read_bytes
from safetyfilter.embed.pictures.jpeg import Jpeg, count_jpeg_scans
from safetyfilter.embed.pictures.views import Geometry
from safetyfilter.standin.backgrounds import installed_file

SKIMAGE, SKLEARN = installed_file("skimage", "data"), installed_file("sklearn", "datasets/images")
PHOTOGRAPHS = {  # without people
    "chelsea": SKIMAGE / "chelsea.png",
    "coffee": SKIMAGE / "coffee.png",
    "rocket": SKIMAGE / "rocket.jpg",
    "motorcycle": SKIMAGE / "motorcycle_left.png",
    "china": SKLEARN / "china.jpg",
    "flower": SKLEARN / "flower.jpg",
}


@lru_cache(maxsize=64)
def photograph(name="coffee", side=512):
    with Image.open(PHOTOGRAPHS[name]) as image:
        scale = side / max(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def encode(image, kind="JPEG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def preparer(*, decode="fast", limits=DEFAULT_LIMITS, image_size=(224, 224), **geometry):
    """A function from an image to the (V, H, W, 3) pixels of the first of its pictures."""
    prepare = ImagePreparer(geometry=Geometry(image_size=image_size, **geometry), decode=decode, limits=limits)
    return lambda image: prepare(image)[0]


def failure(data, **options):
    """The failure's code, the same from the fast and the exact path."""
    codes = set()
    for decode in ("fast", "exact"):
        with pytest.raises(Unreadable) as caught:
            preparer(decode=decode, **options)(data)
        codes.add(caught.value.failure)
    (code,) = codes
    assert code in FAILURES
    return code


def open_clip_transform(image, **config):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    return image_transform_v2(PreprocessCfg(**config), is_train=False)(image)


def normalised(pixels):
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    planes = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
    mean, std = (torch.tensor(values)[:, None, None] for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    return planes.sub_(mean).div_(std)


SAME = {
    "RGB JPEG": ("RGB", "JPEG", {}),
    "RGB progressive JPEG": ("RGB", "JPEG", {"progressive": True}),
    "RGB PNG": ("RGB", "PNG", {}),
    "RGB WebP": ("RGB", "WEBP", {}),
    "RGB BMP": ("RGB", "BMP", {}),
    "RGB TIFF": ("RGB", "TIFF", {}),
    "grey JPEG": ("L", "JPEG", {}),
    "grey PNG": ("L", "PNG", {}),
    "grey TIFF": ("L", "TIFF", {}),
}
"""Mode, format and options of what ``decode="exact"`` prepares as open_clip does, bit for bit."""


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(photograph(side=300), exif=exif)


def with_alpha(mode):
    picture = photograph(side=300).convert(mode)
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    return encode(picture, "PNG")


OTHERS = {
    "P palette": lambda: encode(photograph(side=300).convert("P"), "PNG"),
    "P GIF": lambda: encode(photograph(side=300), "GIF"),
    "1 bit": lambda: encode(photograph(side=300).convert("1"), "PNG"),
    "RGBA alpha": lambda: with_alpha("RGB"),
    "LA alpha": lambda: with_alpha("L"),
    "I;16 deep grey": lambda: encode(
        Image.fromarray(np.asarray(photograph(side=300).convert("L")) * np.uint16(257)), "PNG"
    ),
    "F deep grey": lambda: encode(
        Image.fromarray(np.asarray(photograph(side=300).convert("L"), np.float32) / 255), "TIFF"
    ),
    "YCbCr TIFF": lambda: encode(photograph(side=300).convert("YCbCr"), "TIFF"),
    "CMYK JPEG": lambda: encode(photograph(side=300).convert("CMYK")),
    "RGB turned by EXIF": turned,
}
"""What it prepares in another way by design; the first word is the mode in which Pillow opens it."""


class TestExact:
    @pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
    @pytest.mark.parametrize("image_size", [(224, 224), (96, 160)])
    @pytest.mark.parametrize("side", [150, 512, 1024])
    @pytest.mark.parametrize("name", PHOTOGRAPHS)
    def test_is_open_clips_transform_bit_for_bit(self, name, side, image_size, resize_mode):
        data = encode(photograph(name, side), quality=90)
        pixels = preparer(image_size=image_size, resize_mode=resize_mode, decode="exact", fill_color=3)(data)
        expected = open_clip_transform(
            Image.open(io.BytesIO(data)), size=image_size, resize_mode=resize_mode, fill_color=3
        )
        assert torch.equal(normalised(pixels[0]), expected)

    @pytest.mark.parametrize("name", SAME)
    def test_is_so_for_upright_rgb_and_grey_of_8_bits(self, name):
        mode, kind, options = SAME[name]
        data = encode(photograph(side=300).convert(mode), kind, **options)
        expected = open_clip_transform(Image.open(io.BytesIO(data)), size=224)
        assert torch.equal(normalised(preparer(decode="exact")(data)[0]), expected)

    @pytest.mark.parametrize("name", OTHERS)
    def test_is_not_so_by_design_for_all_others(self, name):
        data = OTHERS[name]()
        assert Image.open(io.BytesIO(data)).mode == name.split()[0]
        expected = open_clip_transform(Image.open(io.BytesIO(data)), size=224)
        assert not torch.equal(normalised(preparer(decode="exact")(data)[0]), expected)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_is_so_after_the_transposition_that_exif_asks_for(self, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(photograph(side=400), exif=exif)
        pixels = preparer(decode="exact", interpolation="bilinear")(data)
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        assert torch.equal(normalised(pixels[0]), open_clip_transform(upright, size=224, interpolation="bilinear"))


@pytest.fixture(scope="module")
def vit():
    import open_clip

    torch.manual_seed(0)
    return open_clip.create_model("ViT-B-32").visual.eval()


class TestFast:
    """The default decoding stays close to the exact one, in pixels and in embeddings."""

    @pytest.mark.parametrize(
        ("name", "views"),
        [
            *((name, "center") for name in PHOTOGRAPHS),
            ("china", "whole"),
            ("coffee", "multi"),
        ],
    )
    def test_pixels_and_embeddings_stay_close(self, vit, name, views):
        exact, fast = [], []
        for side, quality in [(256, 75), (512, 95), (1024, 75), (2048, 95)][2 if views == "multi" else 0 :]:
            data = encode(photograph(name, side), quality=quality)
            exact.extend(preparer(views=views, decode="exact")(data))
            fast.extend(preparer(views=views)(data))
        for one, other in zip(exact, fast, strict=True):
            difference = np.abs(one.astype(int) - other)
            assert difference.mean() < 3
            assert np.percentile(difference, 99) < 25
        with torch.inference_mode():
            a, b = (vit(torch.stack([normalised(p) for p in pixels])) for pixels in (exact, fast))
        assert torch.nn.functional.cosine_similarity(a, b).min() >= 0.995

    @pytest.mark.parametrize("mode", ["L", "CMYK"])
    @pytest.mark.parametrize("orientation", [1, 3, 6, 7])
    @pytest.mark.parametrize("views", ["center", "multi"])
    def test_scaled_decoding_goes_with_orientation_and_colour_mode(self, mode, orientation, views):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(photograph("china", 2000).convert(mode), exif=exif, quality=90)
        fast, exact = preparer(views=views)(data), preparer(views=views, decode="exact")(data)
        assert np.abs(exact.astype(int) - fast).mean() < 3

    @pytest.mark.parametrize(
        ("views", "size"),
        [
            ("center", (1366, 1024)),
            ("whole", (1366, 1024)),
            ("multi", (2048, 1536)),
        ],
    )
    @pytest.mark.parametrize("way", ["straight", "by Pillow"])
    def test_a_large_jpeg_is_decoded_small_but_no_smaller_than_three_times_the_need(
        self, way, views, size, monkeypatch
    ):
        loaded = []
        load, decoded = Jpeg.load, turbo._decoded
        if way == "by Pillow":
            monkeypatch.setattr(turbo, "simplejpeg", None)
            monkeypatch.setattr(Jpeg, "load", lambda self: (loaded.append(self.size), load(self))[1])
        else:
            monkeypatch.setattr(
                turbo, "_decoded", lambda data, plan: (loaded.append((plan.width, plan.height)), decoded(data, plan))[1]
            )
        preparer(views=views)(encode(Image.new("RGB", (4096, 3072) if views == "multi" else (2732, 2048))))
        assert loaded[0] == size


class TestFormats:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
    @pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
    def test_every_format_from_every_kind_of_bytes(self, kind, wrap):
        reference = preparer(decode="exact")(photograph())
        pixels = preparer()(wrap(encode(photograph(), kind)))
        assert pixels.shape == (1, 224, 224, 3)
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        assert np.abs(pixels.astype(int) - reference).mean() < 14  # a GIF has 256 colours

    @pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_orientation_in_formats_other_than_jpeg(self, kind, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(photograph(side=300), kind, exif=exif)
        with Image.open(io.BytesIO(data)) as image:
            expected = preparer(decode="exact")(ImageOps.exif_transpose(image).convert("RGB"))
        assert np.array_equal(preparer(decode="exact")(data), expected)

    @pytest.mark.parametrize(
        ("kind", "mode"),
        [
            ("JPEG", "L"),
            ("JPEG", "CMYK"),
            ("PNG", "1"),
            ("PNG", "L"),
            ("PNG", "LA"),
            ("PNG", "P"),
            ("PNG", "RGBA"),
            ("PNG", "I;16"),
            ("TIFF", "I;16"),
            ("TIFF", "I;16B"),
            ("TIFF", "I"),
            ("TIFF", "F"),
            ("TIFF", "CMYK"),
            ("TIFF", "RGBA"),
            ("TIFF", "1"),
            ("WEBP", "RGBA"),
            ("GIF", "P"),
            ("BMP", "1"),
            ("BMP", "P"),
        ],
    )
    def test_every_mode(self, kind, mode):
        grey = photograph().convert("L")
        if mode.startswith("I"):
            wide = np.asarray(grey).astype(np.uint16) * 257
            image = Image.fromarray(wide.astype({"I": np.int32, "I;16": "<u2", "I;16B": ">u2"}[mode]))
        else:
            image = (photograph() if mode == "CMYK" else grey).convert(mode)
        reference = preparer(decode="exact")(photograph() if mode == "CMYK" else grey)
        pixels = preparer(decode="exact")(encode(image, kind))
        assert np.abs(pixels.astype(int) - reference).mean() < (30 if mode == "1" else 8)

    @pytest.mark.parametrize("as_path", [str, Path])
    def test_paths(self, tmp_path, as_path):
        file = tmp_path / "coffee.bin"
        file.write_bytes(encode(photograph()))
        assert np.array_equal(preparer()(as_path(file)), preparer()(file.read_bytes()))

    def test_a_pil_image_is_used_as_it_is_even_by_two_threads_at_once(self):
        expected = preparer()(encode(photograph(), "PNG"))
        with Image.open(io.BytesIO(encode(photograph(), "PNG"))) as image, ThreadPoolExecutor(8) as pool:
            for pixels in pool.map(preparer(), [image] * 16):
                assert np.array_equal(pixels, expected)

    def test_damaged_exif_does_not_matter(self):
        exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x1a\x01\x05\0\x01\0\0\0\xff\xff\0\0" * 3
        data = encode(photograph(), exif=exif)
        assert np.array_equal(preparer()(data), preparer()(encode(photograph())))


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, extra=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def gif(screen, frame):
    header = b"GIF89a" + struct.pack("<HHBBB", *screen, 0, 0, 0)
    return header + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x08\x00;"


def webp(width, height):
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\2\0\0\0"
    body += struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp(width, height, compression=0, pixels=b""):
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, len(pixels), 0, 0, 256, 0) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(pixels), 0, 0, 14 + len(header)) + header + pixels


def tiff(**tags):
    numbers = {
        "width": 256,
        "height": 257,
        "photometric": 262,
        "strips": 273,
        "rows": 278,
        "strip_bytes": 279,
        "tile_width": 322,
        "tile_height": 323,
        "tiles": 324,
        "tile_bytes": 325,
    }
    entries = sorted((numbers[name], value) for name, value in tags.items())
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)


def more_scans(data, times):
    last = data.rfind(b"\xff\xda")
    return data[:-2] + data[last:-2] * times + b"\xff\xd9"


NOISE = b"BM these are the minutes of a meeting, and no bitmap at all. " * 9
HUGE = 60_000
HOSTILE = {
    "empty": (b"", "empty"),
    "text": (b"this is no picture", "not_an_image"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image"),
    "icon": (b"\0\0\1\0\1\0" + bytes(40), "not_an_image"),
    "text that begins as a bitmap does": (NOISE, "truncated"),
    "png of 60,000 squared": (png(HUGE, HUGE), "too_many_pixels"),
    "png of 0 by 0": (png(0, 0), "undecodable"),
    "png of 2**31 squared": (png(2**31 - 1, 2**31 - 1), "too_many_pixels"),
    "gif of 65,535 squared": (gif((65535, 65535), (65535, 65535)), "too_many_pixels"),
    "gif whose frame outgrows its screen": (gif((1, 1), (65535, 65535)), "too_many_pixels"),
    "webp of 60,000 squared": (webp(HUGE, HUGE), "too_many_pixels"),
    "bmp of 60,000 squared": (bmp(HUGE, HUGE), "too_many_pixels"),
    "bmp of a negative width": (bmp(-5, 5), "too_many_pixels"),
    "tiff of 60,000 squared": (
        tiff(width=HUGE, height=HUGE, photometric=1, strips=8, rows=HUGE, strip_bytes=9),
        "too_many_pixels",
    ),
    "tiff without tags": (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "undecodable"),
    "tiff that points beyond its end": (b"II*\0\xff\xff\xff\x7f", "undecodable"),
    "png with a text that expands to 50 MB": (
        png(3, 1, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000)))),
        "undecodable",
    ),
    "png with a profile that expands to 50 MB": (
        png(3, 1, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(50_000_000)))),
        "undecodable",
    ),
    "png of 300,000 chunks": (png(3, 1, chunk(b"teST", b"") * 300_000), "too_many_segments"),
    "gif of 1,000,000 blocks": (
        b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + b"!\xfe" + b"\1a" * 10**6,
        "too_many_segments",
    ),
    "jpeg of nothing but filling": (b"\xff\xd8\xff" + b"\xff\0a" * 10**6, "too_many_segments"),
    "bmp of 1,000,000 runs": (bmp(1000, 1000, 1, (b"\1\5" * 1000 + b"\0\0") * 1000 + b"\0\1"), "too_many_segments"),
    "bmp whose few runs are wide": (bmp(44_739_242, 2, 1, b"\1\0\0\0\1\0\0\0\0\1"), "too_many_pixels"),
    "jpeg of 99 scans of 6 million pixels": (
        more_scans(encode(Image.new("RGB", (3000, 2000)), progressive=True), 89),
        "too_many_scans",
    ),
    "progressive jpeg of 5,000 scans": (more_scans(encode(photograph(), progressive=True), 5000), "too_many_scans"),
}


class TestHostile:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_costs_little_and_becomes_a_failure(self, name):
        data, code = HOSTILE[name]
        begun = time.process_time()
        assert failure(data) == code
        assert time.process_time() - begun < 8  # twice decoded; a fraction of this on an idle machine

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
    @pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.98])
    def test_truncated_files_never_pass(self, kind, share):
        data = encode(photograph(), kind)
        assert failure(data[: int(len(data) * share)]) in ("truncated", "undecodable")

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
    @pytest.mark.parametrize("share", [0.3, 0.98])
    def test_and_are_called_truncated_where_the_format_says_so(self, kind, share):
        data = encode(photograph(), kind, **({"progressive": True} if kind == "JPEG" else {}))
        assert failure(data[: int(len(data) * share)]) == "truncated"

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
    def test_damaged_files_raise_nothing_else(self, kind):
        data = encode(photograph(side=96), kind)
        random = np.random.default_rng(len(kind))
        for _ in range(120):
            damaged = bytearray(data)
            for at in random.integers(0, len(data) if random.random() < 0.5 else 64, 4):
                damaged[at] = random.integers(256)
            try:
                pixels = preparer(image_size=(16, 16))(bytes(damaged))
            except Unreadable as error:
                assert error.failure in FAILURES  # noqa: PT017 - either is right
            else:
                assert pixels.shape == (1, 16, 16, 3)

    def test_a_text_file_named_jpg(self, tmp_path):
        file = tmp_path / "notes.jpg"
        file.write_text("nothing to see")
        assert failure(file) == "not_an_image"

    def test_files_that_cannot_be_read(self, tmp_path):
        import os

        assert failure(tmp_path / "none.jpg") == "missing"
        assert failure(tmp_path) == "unreadable"
        assert failure("a\0b.jpg") == "unreadable"
        os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for ever
        assert failure(tmp_path / "pipe.jpg") == "unreadable"

    @pytest.mark.parametrize("size", [(1, 5000), (60_000, 2)])
    def test_a_line_that_would_be_enlarged_beyond_the_limit(self, size):
        data = encode(Image.new("RGB", size), "PNG")
        assert failure(data) == "too_many_pixels"
        assert failure(data, resize_mode="longest") == "too_narrow"
        assert preparer(views="multi")(data).shape == (5, 224, 224, 3)

    def test_limits_can_be_set(self, tmp_path):
        data = encode(photograph(), progressive=True)
        (tmp_path / "a.jpg").write_bytes(data)
        assert failure(data, limits=DecodeLimits(max_pixels=1000)) == "too_many_pixels"
        assert failure(photograph(), limits=DecodeLimits(max_pixels=1000)) == "too_many_pixels"
        assert failure(data, limits=DecodeLimits(max_bytes=1000)) == "too_many_bytes"
        assert failure(tmp_path / "a.jpg", limits=DecodeLimits(max_bytes=1000)) == "too_many_bytes"
        assert failure(data, limits=DecodeLimits(max_jpeg_scans=9)) == "too_many_scans"
        with pytest.raises(ValueError, match="max_pixels"):
            DecodeLimits(max_pixels=0)

    def test_a_small_tiff_stored_as_one_tile_larger_than_the_limit(self):
        size = {"width": 8, "height": 8, "photometric": 1, "tiles": 8, "tile_bytes": 9}
        assert failure(tiff(**size, tile_width=HUGE, tile_height=HUGE)) == "too_many_pixels"

    def test_scans_count_to_the_end_of_the_picture_only(self):
        data = encode(photograph())
        assert count_jpeg_scans(data, 100) == 1
        film = data + b"\xff\xda" * 500  # phones append a film to a photograph
        assert count_jpeg_scans(film, 100) == 1
        assert np.array_equal(preparer()(film), preparer()(data))

    def test_large_pictures_take_turns(self, monkeypatch):
        at_once, most, lock = [0], [0], threading.Lock()
        original = images.renderings

        def renderings(image):
            with lock:
                at_once[0] += 1
                most[0] = max(most[0], at_once[0])
            time.sleep(0.01)
            try:
                return original(image)
            finally:
                with lock:
                    at_once[0] -= 1

        monkeypatch.setattr(images, "renderings", renderings)
        data = encode(photograph(), "PNG")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(preparer(limits=DecodeLimits(large_pixels=100_000)), [data] * 16))
            assert most == [1]
            list(pool.map(preparer(), [data] * 16))
            assert most[0] > 1

    def test_there_is_one_turn_whatever_a_large_picture_is_decoded_for(self, monkeypatch):
        free, original = [], images.renderings

        def seen(image):
            free.append(ONE_LARGE_PICTURE.acquire(blocking=False))
            return original(image)

        for module in (images, lumas):
            monkeypatch.setattr(module, "renderings", seen)
        data, limits = encode(photograph(), "PNG"), DecodeLimits(large_pixels=100_000)
        preparer(limits=limits)(data)
        list(lumas.lumas_of(data, limits))
        assert free == [False, False]

    def test_nothing_of_the_process_is_changed(self):
        import warnings

        from PIL import ImageFile

        before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
        for data, _ in HOSTILE.values():
            with pytest.raises(Unreadable):
                preparer()(data)
        assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before

    @pytest.mark.parametrize("thing", [None, 3, np.zeros((4, 4, 3)), ["a.jpg"]])
    def test_a_wrong_type_is_the_callers_error(self, thing):
        with pytest.raises(TypeError, match="encoded bytes, a path or a PIL image"):
            preparer()(thing)

    def test_a_pil_image_that_cannot_be_loaded(self):
        data = encode(photograph(), "PNG")
        assert failure(Image.open(io.BytesIO(data[: len(data) // 2]))) in ("truncated", "undecodable")

    def test_an_unknown_code_is_refused_and_a_failure_can_be_pickled(self):
        with pytest.raises(ValueError, match="not_an_image"):
            Unreadable("no such code")
        assert pickle.loads(pickle.dumps(Unreadable("empty"))).failure == "empty"

    def test_no_failure_names_the_file(self, tmp_path):
        with pytest.raises(Unreadable) as caught:
            read_bytes(tmp_path / "secret.jpg")
        assert "secret" not in f"{caught.value!r} {caught.value}"
        assert caught.value.__suppress_context__
