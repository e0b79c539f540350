"""One name for each license, however it is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.data.licenses import license_name, license_set
from medclip.errors import UserError


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("CC BY", "cc-by"),
        ("CC-BY-4.0", "cc-by"),
        ("cc by 4.0", "cc-by"),
        ("cc_by_nc_sa", "cc-by-nc-sa"),
        ("CC BY-NC-ND", "cc-by-nc-nd"),
        ("https://creativecommons.org/licenses/by-nc/3.0/", "cc-by-nc"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "cc0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "public-domain"),
        ("CC0", "cc0"),
        ("CC0-1.0", "cc0"),
        ("CC Zero", "cc0"),
        ("CC", "cc"),
        ("NO-CC CODE", "no-cc-code"),
        ("", ""),
    ],
)
def test_examples(written, name):
    assert license_name(written) == name


@given(st.text(max_size=30))
def test_a_name_is_its_own_name(written):
    assert license_name(license_name(written)) == license_name(written)


def test_a_list_of_licenses():
    assert license_set("CC BY 4.0, cc0") == {"cc-by", "cc0"}
    with pytest.raises(UserError, match="names no license"):
        license_set(" , ")
