"""PDQ hashes: those of the reference, of every picture in a file, turned and mirrored."""

import io
import sys
import threading

import numpy as np
import pdqhash
import pytest
from PIL import Image, ImageOps

from safetyfilter.batches import Unreadable
from safetyfilter.embed.pictures.headers import DecodeLimits
from safetyfilter.errors import MissingExtraError
from safetyfilter.hashes.pdq import MIN_QUALITY, pdq_of
from safetyfilter.hashes.pdq_index import MAX_DISTANCE
from safetyfilter.standin.backgrounds import photograph

SIZES = [(5, 5), (33, 20), (64, 64), (97, 130), (65, 511), (320, 240), (512, 512)]
LARGER = [(513, 400), (1024, 683), (700, 1500), (2100, 900)]
TRANSFORMS = (lambda a: a, lambda a: a[:, ::-1], lambda a: a[::-1], lambda a: a[::-1, ::-1])
RGB = ("china", "coffee", "chelsea", "motorcycle_left", "rocket", "flower")


def picture(size=(300, 200), name="china"):
    return photograph(name).resize(size, Image.Resampling.BICUBIC)


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def reference(pixels):
    """The bits that ``pdqhash`` gives of all pixels, whatever their number, as ThreatExchange's own Python calls it."""
    bits, quality = pdqhash.compute(np.ascontiguousarray(pixels))
    return np.asarray(bits, np.uint8), quality


def distance(hashed, bits):
    return int((np.unpackbits(np.frombuffer(hashed, np.uint8)) != bits).sum())


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_it_is_the_reference_s_hash_turned_and_mirrored_too(size):
    """The bits that differ are of frequencies that are as strong as their median, to the rounding of samples."""
    image = picture(size)
    (found,) = pdq_of(encoded(image))
    assert found.hash == found.dihedral[0].tobytes()
    assert abs(found.quality - reference(np.asarray(image))[1]) <= 1
    for number, transform in enumerate([*TRANSFORMS, *(lambda a, t=t: t(a).swapaxes(0, 1) for t in TRANSFORMS)]):
        bits, _ = reference(transform(np.asarray(image)))
        assert distance(found.dihedral[number], bits) <= 2, number


@pytest.mark.parametrize("name", ["grass", "gravel", "brick"])
def test_a_turned_copy_of_a_fine_pattern_is_near_though_not_by_the_signs_of_its_frequencies(name):
    """The reference's samples lie off their blocks' centres, which its own eight hashes of a picture leave out."""
    listed, _ = reference(np.asarray(picture((512, 512), name)))
    copy = np.ascontiguousarray(np.asarray(picture((512, 512), name))[::-1, ::-1])
    of_signs, _ = pdqhash.compute_dihedral(copy)
    assert min(int((np.asarray(bits) != listed).sum()) for bits in of_signs) > MAX_DISTANCE
    (found,) = pdq_of(encoded(Image.fromarray(copy)))
    assert min(distance(row.tobytes(), listed) for row in found.dihedral) <= 2


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", LARGER, ids=str)
def test_large_pictures_are_as_near_to_the_reference_as_implementations_must_be(size, format):
    """ThreatExchange's own bar: at most 10 bits where the quality is 80 or more."""
    file = encoded(picture(size), format, **({"quality": 90} if format == "JPEG" else {}))
    bits, quality = reference(np.asarray(Image.open(io.BytesIO(file)).convert("RGB")))
    (found,) = pdq_of(file)
    assert quality >= 80
    assert abs(found.quality - quality) <= 2
    assert distance(found.hash, bits) <= 10


def test_the_hash_is_written_as_others_write_it():
    """As ThreatExchange's Python does: the bits as one number in hex."""
    image = picture()
    bits, _ = reference(np.asarray(image))
    written = f"{int(''.join(map(str, bits)), 2):064x}"
    assert (
        sum((a ^ b).bit_count() for a, b in zip(pdq_of(encoded(image))[0].hash, bytes.fromhex(written), strict=True))
        <= 2
    )


@pytest.mark.parametrize("name", RGB)
def test_a_copy_is_near_and_another_picture_is_not(name):
    hashed = pdq_of(encoded(picture(name=name)))[0].dihedral[0]
    copy = pdq_of(encoded(picture((150, 100), name), "JPEG", quality=60))[0].dihedral
    others = np.stack([pdq_of(encoded(picture(name=other)))[0].dihedral[0] for other in RGB if other != name])
    differing = np.unpackbits(hashed ^ copy, axis=1).sum(axis=1)
    assert differing[0] <= MAX_DISTANCE
    assert differing[1:].min() > MAX_DISTANCE
    assert np.unpackbits(hashed ^ others, axis=1).sum(axis=1).min() > MAX_DISTANCE


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_exif_turns_is_hashed_as_it_is_stored_and_as_it_is_shown(orientation):
    image = picture()
    exif = Image.Exif()
    exif[0x0112] = orientation
    (plain,), (turned,) = pdq_of(encoded(image, "JPEG")), pdq_of(encoded(image, "JPEG", exif=exif))
    assert turned.hash == plain.hash
    shown = Image.open(io.BytesIO(encoded(image, "JPEG", exif=exif)))
    (upright,) = pdq_of(encoded(ImageOps.exif_transpose(shown)))
    assert np.unpackbits(turned.dihedral ^ upright.dihedral[0], axis=1).sum(axis=1).min() <= 4


@pytest.mark.parametrize(("format", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_every_frame_and_page_is_hashed(format, options):
    images = [picture(name=name).convert("P" if format == "GIF" else "RGB") for name in RGB[:3]]
    found = pdq_of(encoded(images[0], format, save_all=True, append_images=images[1:], **options))
    assert len(found) == 3
    for one, image in zip(found, images, strict=True):
        assert distance(one.hash, reference(np.asarray(image.convert("RGB")))[0]) <= 6


def test_every_picture_behind_a_jpeg_s_first_is_hashed():
    images = [picture(name=name) for name in RGB[:2]]
    found = pdq_of(encoded(images[0], "MPO", save_all=True, append_images=images[1:]))
    assert [one.quality for one in found] == [100, 100]
    for one, image in zip(found, images, strict=True):
        assert distance(one.hash, reference(np.asarray(image))[0]) <= 10


def test_what_transparency_hides_and_shows_is_hashed():
    """A picture under full transparency is what a loader that drops it sees; on white or black stands its outline."""
    image = picture()
    outline = picture(name="coffee").convert("L")
    image.putalpha(outline)
    found = pdq_of(encoded(image))
    assert len(found) == 3
    assert distance(found[0].hash, reference(np.asarray(image.convert("RGB")))[0]) <= 2


def test_pictures_that_look_the_same_are_hashed_once():
    image = picture()
    assert len(pdq_of(encoded(image, "GIF", save_all=True, append_images=[image, picture(name="coffee")]))) == 2


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "I;16", "CMYK"])
def test_pictures_of_any_mode_are_hashed_as_loaders_show_them(mode):
    grey = picture().convert("L")
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 256) if mode == "I;16" else picture().convert(mode)
    found = pdq_of(encoded(image, "TIFF" if mode == "CMYK" else "PNG"))
    expected, _ = reference(np.repeat(np.asarray(grey)[..., None], 3, axis=2))
    assert min(distance(one.hash, expected) for one in found) <= (60 if mode == "1" else 12)


@pytest.mark.parametrize(
    "image",
    [Image.new("RGB", (200, 200), "teal"), picture((4, 300)), picture((300, 4))],
    ids=lambda image: f"{image.width} x {image.height}",
)
def test_too_little_in_a_picture_is_told_by_its_quality(image):
    (found,) = pdq_of(encoded(image))
    assert found.quality < MIN_QUALITY


@pytest.mark.parametrize(
    ("file", "failure"),
    [
        (b"", "empty"),
        (b"text", "not_an_image"),
        (encoded(picture())[:-4000], "truncated"),
        (encoded(picture(), "JPEG")[:2000], "truncated"),
        (encoded(Image.new("1", (12_000, 12_000))), "too_many_pixels"),
        (encoded(picture()) + bytes(300_000), "too_many_bytes"),
    ],
    ids=["empty", "text", "truncated PNG", "truncated JPEG", "pixels", "bytes"],
)
def test_what_cannot_be_decoded_has_no_hash(file, failure):
    with pytest.raises(Unreadable, match=failure):
        pdq_of(file, DecodeLimits(max_bytes=300_000))


def test_an_animation_that_breaks_off_has_no_hash():
    images = [picture(name=name) for name in RGB[:3]]
    file = encoded(images[0], "PNG", save_all=True, append_images=images[1:])
    with pytest.raises(Unreadable):
        pdq_of(file[: len(file) * 2 // 3] + file[-12:])


def test_large_pictures_take_turns():
    """And are let go again: two threads with a limit that makes every picture a large one."""
    limits, file, found = DecodeLimits(large_pixels=1), encoded(picture()), []
    threads = [threading.Thread(target=lambda: found.append(pdq_of(file, limits)[0].hash)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [pdq_of(file)[0].hash] * 4


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pdqhash", None)
    with pytest.raises(MissingExtraError, match=r"pdqhash is not installed: pip install 'safetyfilter\[hashes\]'"):
        pdq_of(encoded(picture()))
