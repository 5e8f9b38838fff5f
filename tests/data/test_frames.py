"""Frame times and windows, against brute force over fractions of a second."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from hv15.data.frames import MOST_WINDOWS, Timeline, exact_fps, windows
from hv15.errors import UserError

F = Fraction


@pytest.mark.parametrize("fps", [F(30), F(25), F(60), F(15), F(24), F(30000, 1001), F(12), F(120)])
def test_a_constant_rate_gives_the_floor_of_the_scaled_index(fps: Fraction) -> None:
    """The rule as users write it: output frame i shows source frame floor(i * source / 24)."""
    line = Timeline.constant(1600, fps)
    count = line.count(F(24))
    assert count == 1600 * 24 // fps
    assert [line.source_frame(i, F(24)) for i in range(count)] == [i * fps // 24 for i in range(count)]


@pytest.mark.parametrize("fps", [F(24), F("23.976"), F("23.98"), F("23.96"), F("24.04"), F(24000, 1001)])
@pytest.mark.parametrize("times", [F(1), F(2), F(3), F(5), F(1, 2), F(1, 3)])
def test_rates_near_a_multiple_of_24_count_as_that(fps: Fraction, times: Fraction) -> None:
    line = Timeline.constant(1600, fps * times)
    chosen = [line.source_frame(i, F(24)) for i in range(line.count(F(24)))]
    assert chosen == [i * times // 1 for i in range(int(1600 // times))]


def test_further_off_rates_follow_the_clock() -> None:
    for fps in (F("23.95"), F("24.05"), F(25)):
        line = Timeline.constant(3000, fps)
        assert [line.source_frame(i, F(24)) for i in range(line.count(F(24)))] == [
            i * fps // 24 for i in range(3000 * 24 // fps)
        ]


def test_a_target_of_another_rate_has_its_own_multiples() -> None:
    line = Timeline.constant(100, F(30000, 1001))
    assert [line.source_frame(i, F(30)) for i in range(line.count(F(30)))] == list(range(100))
    assert [line.source_frame(i, F(15)) for i in range(line.count(F(15)))] == list(range(0, 100, 2))


def test_a_steady_camera_whose_header_is_wrong() -> None:
    """Times of 23.98 fps in ticks of 1/600 s, and a header that says 25: the rate comes from the times."""
    pts = [round(i * 600 / 23.98) for i in range(2000)]
    line = Timeline.stamped(pts, F(1, 600), 25, [F(25)])
    assert [line.source_frame(i, F(24)) for i in range(line.count(F(24)))] == list(range(2000))


def test_thirty_to_twenty_four_takes_four_of_five_frames() -> None:
    line = Timeline.constant(1600, F(30))
    chosen = [line.source_frame(i, F(24)) for i in range(line.count(F(24)))]
    assert chosen[:9] == [0, 1, 2, 3, 5, 6, 7, 8, 10]
    assert len(chosen) == 1280
    assert len(set(chosen)) == 1280


def test_a_slow_source_repeats_frames() -> None:
    line = Timeline.constant(5, F(12))
    assert [line.source_frame(i, F(24)) for i in range(line.count(F(24)))] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_a_variable_rate_shows_what_is_on_the_screen() -> None:
    """Brute force: at time i/24 s the last frame that has begun."""
    chooser = random.Random(7)
    for _ in range(30):
        base = F(1, chooser.choice([600, 1000, 15360, 90000, 30]))
        pts = sorted(chooser.sample(range(int(3 / base)), 40))
        last = chooser.randrange(1, 1 + int(F(1, 10) / base))
        line = Timeline.stamped(pts, base, last, [F(24), F(30000, 1001)])
        if line.tick != base:
            continue  # by chance on a grid
        times = [(stamp - pts[0]) * base for stamp in pts]
        end = times[-1] + last * base
        count = line.count(F(24))
        assert count <= end * 24 < count + 1
        for i in range(count):
            assert line.source_frame(i, F(24)) == max(k for k, time in enumerate(times) if time <= F(i, 24))


@pytest.mark.parametrize("fps", [F(24), F(30), F(25), F(60), F(24000, 1001), F(30000, 1001)])
def test_times_rounded_to_milliseconds_lose_no_frame(fps: Fraction) -> None:
    """Matroska stamps frame 1 of 24 fps at 42 ms, after its due time of 41.67 ms; it must be shown nevertheless."""
    for start in (0, 83):
        pts = [start + round(i / fps * 1000) for i in range(500)]
        line = Timeline.stamped(pts, F(1, 1000), round(1000 / fps), [fps])
        exact = Timeline.constant(500, fps)
        assert line.count(F(24)) == exact.count(F(24))
        chosen = [line.source_frame(i, F(24)) for i in range(line.count(F(24)))]
        assert chosen == [exact.source_frame(i, F(24)) for i in range(line.count(F(24)))]


@pytest.mark.parametrize("base", [F(1, 16000), F(1, 90000), F(1, 1000)])
@pytest.mark.parametrize("fps", [F(24), F(24000, 1001), F(48000, 1001), F(30000, 1001), F(60)])
def test_milliseconds_survive_a_copy_into_a_finer_clock(fps: Fraction, base: Fraction) -> None:
    """What is copied from Matroska into MP4 or MPEG-TS keeps its rounded times."""
    pts = [round(i / fps * 1000) * int(F(1, 1000) / base) for i in range(500)]
    line, exact = Timeline.stamped(pts, base, 0, [fps]), Timeline.constant(500, fps)
    assert line.rate == fps
    assert [line.source_frame(i, F(24)) for i in range(line.count(F(24)))] == [
        exact.source_frame(i, F(24)) for i in range(exact.count(F(24)))
    ]


@pytest.mark.parametrize("first", [2, 3])
@pytest.mark.parametrize("base", [F(1, 90000), F(1, 1000)])
@pytest.mark.parametrize("stated", [F(30000, 1001), F(60000, 1001), None])
def test_a_film_with_pulldown_shows_each_frame_once(first: int, base: Fraction, stated: Fraction | None) -> None:
    """On a DVD, a film's frames last for 3 and 2 fields in turn."""
    fields = [0]
    for i in range(99):
        fields.append(fields[-1] + (first if i % 2 == 0 else 5 - first))
    pts = [round(count / F(60000, 1001) / base) for count in fields]
    rates = [stated] if stated else [F(60000, 1001), F(24000, 1001)]
    line = Timeline.stamped(pts, base, 0, rates)
    assert line.rate == F(24000, 1001)
    assert [line.source_frame(i, F(24)) for i in range(line.count(F(24)))] == list(range(100))


@pytest.mark.parametrize("base", [F(1, 600), F(1, 16000), F(1, 90000), F(1, 1000)])
def test_a_fine_clock_is_no_rate(base: Fraction) -> None:
    """Containers give their clock as the rate of a video that has no rate."""
    chooser = random.Random(1)
    pts = sorted(chooser.sample(range(int(5 / base)), 100))
    line = Timeline.stamped(pts, base, 0, [1 / base])
    assert line.rate is None
    times = [(stamp - pts[0]) * base for stamp in pts]
    for i in range(line.count(F(24))):
        assert line.source_frame(i, F(24)) == max(k for k, time in enumerate(times) if time <= F(i, 24))


def test_a_recorder_that_dropped_a_third_of_the_frames() -> None:
    kept = [i for i in range(300) if i % 3 != 1]
    line = Timeline.stamped([round(i * 1001 / 24) for i in kept], F(1, 1000), 42, [F(24000, 1001)])
    shown = [line.source_frame(i, F(24)) for i in range(line.count(F(24)))]
    assert shown == [sum(each <= i for each in kept) - 1 for i in range(300)]


def test_a_dropped_frame_leaves_the_others_in_place() -> None:
    pts = [round(i * 1000 / 24) for i in range(50) if i != 20]
    line = Timeline.stamped(pts, F(1, 1000), 42, [F(24)])
    shown = [line.source_frame(i, F(24)) for i in range(line.count(F(24)))]
    assert shown == [*range(20), 19, *range(20, 49)]


def test_an_unknown_last_duration_is_that_of_the_frame_before() -> None:
    assert Timeline.stamped([0, 7, 19], F(1, 100), 0, []).duration == 31


def test_one_frame_is_a_video_of_one_frame() -> None:
    assert Timeline.constant(1, F(60)).count(F(24)) == 1


def test_rates_are_the_decimals_that_the_user_wrote() -> None:
    assert exact_fps(29.97) == F(2997, 100)


@pytest.mark.parametrize(
    ("extraction", "targets", "options", "expected"),
    [
        ("head", [17], {}, [(0, 17)]),
        ("head", [18], {}, [(0, 17)]),
        ("head", [1, 17, 81], {}, [(0, 1), (0, 17)]),
        ("chunk", [17], {}, [(0, 17), (17, 17)]),
        ("slide", [17], {"stride": 10}, [(0, 17), (10, 17), (20, 17)]),
        ("uniform", [17], {"sample": 3}, [(0, 17), (11, 17), (23, 17)]),
        ("uniform", [17], {"sample": 1}, [(0, 17)]),
        ("uniform", [37], {"sample": 9}, [(0, 37), (1, 37), (2, 37), (3, 37)]),
        ("full", [17], {}, [(0, 37)]),
        ("full", [17], {"max_frames": 24}, [(0, 21)]),
        ("head", [41], {}, []),
        ("slide", [41], {}, []),
    ],
)
def test_windows_of_forty_frames(extraction: str, targets: list[int], options: dict[str, int], expected: list) -> None:
    assert windows(40, extraction, targets, **options) == expected


def test_the_longest_still() -> None:
    assert Timeline((0, 3, 4, 9), 11, F(1, 10)).longest_still() == (2, F(1, 2))
    assert Timeline((0, 3), 11, F(1, 10)).longest_still() == (1, F(8, 10))


@pytest.mark.parametrize("options", [{"stride": 1}, {"sample": 10**9}])
def test_windows_are_limited(options: dict[str, int]) -> None:
    """No list grows with the times in a damaged file, or with a number in the settings."""
    extraction = "slide" if "stride" in options else "uniform"
    assert len(windows(20_016, extraction, [17], **options)) == MOST_WINDOWS
    with pytest.raises(UserError, match="its 20017 frames would give more than 20000 clips"):
        windows(20_017, extraction, [17], **options)
    with pytest.raises(UserError, match="more than 20000 clips"):
        windows(10**15, extraction, [17], **options)


def test_an_unknown_extraction_is_named() -> None:
    with pytest.raises(UserError, match="unknown value 'tail'"):
        windows(40, "tail", [1])
