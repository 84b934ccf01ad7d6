import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uringd.wire.codes import COMPONENT_BYTES_MAX, NAME_BYTES_MAX, ErrorCode
from uringd.wire.exceptions import BadNameError
from uringd.wire.names import check_name


@pytest.mark.parametrize(
    ("name", "components"),
    [
        ("a", ("a",)),
        ("a/b/c.bin", ("a", "b", "c.bin")),
        ("...", ("...",)),
        (" leading and trailing ", (" leading and trailing ",)),
        ("a\\b", ("a\\b",)),
        ("übergröße/日本語", ("übergröße", "日本語")),
        ("a/.uringd", ("a", ".uringd")),
        (".uringd2", (".uringd2",)),
        ("x" * COMPONENT_BYTES_MAX, ("x" * COMPONENT_BYTES_MAX,)),
        ("/".join(["x" * 204] * 5), ("x" * 204,) * 5),
    ],
)
def test_a_good_name_is_split_into_components(name: str, components: tuple[str, ...]) -> None:
    assert check_name(name) == components


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/etc/passwd",
        "a/",
        "a//b",
        ".",
        "..",
        "../a",
        "a/../b",
        "a/./b",
        "a/..",
        ".uringd",
        ".uringd/catalog.sqlite3",
        ".URINGD/x",
        ".Uringd",
        ".ur\u00adingd/spool/x",
        "\u200d.URINGD\ufe0f",
        "\u034f.uringd",
        "a\0b",
        "a\nb",
        "\x1b[31mred",
        "a\x7f",
        "a\x80b",
        "a\x9fb",
        "lone \udc80 surrogate",
        "x" * (COMPONENT_BYTES_MAX + 1),
        "ü" * 128,
        "/".join(["x" * 204] * 4 + ["x" * 205]),
    ],
)
def test_a_bad_name_is_refused_with_a_sentence(name: str) -> None:
    with pytest.raises(BadNameError) as caught:
        check_name(name)
    assert caught.value.code is ErrorCode.BAD_NAME
    assert caught.value.text.isprintable() and str(caught.value).startswith("BAD_NAME: ")


@given(st.text(alphabet=st.sampled_from("ab./\0\x1f\x7f\x80\u0130.uringdURINGD"), max_size=40))
def test_what_passes_stays_below_the_root(name: str) -> None:
    try:
        components = check_name(name)
    except BadNameError:
        return
    assert "/".join(components) == name
    assert len(name.encode()) <= NAME_BYTES_MAX
    assert components[0].lower() != ".uringd"
    for component in components:
        assert component not in ("", ".", "..") and "/" not in component and "\0" not in component


def test_the_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BadNameError("the name is empty")))
    assert error.text == "the name is empty" and error.code is ErrorCode.BAD_NAME
