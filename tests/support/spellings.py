"""A name as reports spell it: in many scripts, orders and spellings; and what a reader recognizes of it."""

import html
import re
import unicodedata

from hypothesis import strategies as st


def nfd(text):
    return unicodedata.normalize("NFD", text)


LATIN = st.text("zqwxkjvüöäéñøłşğåç", min_size=5, max_size=9).map(str.capitalize)
SCRIPTS = [  # letters that make no word of a report
    (LATIN, LATIN),
    (st.builds("O'{}".format, LATIN), LATIN),
    (st.builds("{}-{}".format, LATIN, LATIN), LATIN),
    (st.builds("{} {}".format, LATIN, LATIN), st.builds("{} {}".format, LATIN, LATIN)),
    (st.builds("van der {}".format, LATIN), LATIN),
    (st.text("щжъфёйцк", min_size=4, max_size=8).map(str.capitalize),) * 2,
    (st.text("ξψζθάέώσ", min_size=4, max_size=8).map(str.capitalize),) * 2,
    (st.text("صضطظعغ", min_size=4, max_size=8),) * 2,
    (st.text("王張歐陽龍鳳麗", min_size=1, max_size=2), st.text("淑芬俊傑雅婷", min_size=2, max_size=2)),
    (st.text("박최강윤", min_size=1, max_size=1), st.text("철숙희훈", min_size=2, max_size=2)),
    (st.text("ヤマダワタナベ", min_size=3, max_size=5), st.text("タロハナコ", min_size=3, max_size=4)),
]
PLAIN_LETTERS = str.maketrans({"ø": "o", "ł": "l"})
UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})


def strip_accents(text):
    base = text.replace("Ø", "O").replace("Ł", "L").translate(PLAIN_LETTERS)
    return "".join(c for c in nfd(base) if not unicodedata.combining(c))


RESPELL = [
    *(str, str.upper, nfd, strip_accents),
    *(lambda text: strip_accents(text.lower().translate(UMLAUTS)), lambda text: nfd(text.upper())),
    *(lambda text: text.replace("'", "’"), lambda text: text.replace("O'", "O"), lambda text: text.replace("-", " ")),
    *(lambda text: text.replace("-", ""), lambda text: text.replace(" ", "-"), html.escape),
    lambda text: "".join(f"&#{ord(c)};" for c in text),
]
ORDERS = ["{0}, {1}", "{1} {0}", "{0} {1}", "{0}^{1}", "{1}\n{0}", "Dr. {0}, {1}.", "{0} {1}'s", "{1}_{0}"]


@st.composite
def planted_studies(draw):
    """A name as the header has it, and reports that spell it in several ways."""
    family, given_name = map(draw, draw(st.sampled_from(SCRIPTS)))
    header = draw(st.sampled_from([nfd, str, str.upper]))(f"{family}^{given_name}")
    header = draw(st.sampled_from(["{}", "Zzz^Qqq={}", "Zzz^Qqq={}={}", "{}^^Dr.^Jr."])).format(header, header)
    spellings = draw(st.lists(st.tuples(st.sampled_from(RESPELL), st.sampled_from(ORDERS)), min_size=3, max_size=6))
    return header, [respell(order.format(family, given_name)) for respell, order in spellings], (family, given_name)


def letters_of(text):
    """Letters alone, without case and marks: what a reader recognizes, whatever the spelling."""
    text = strip_accents(html.unescape(text).casefold().translate(UMLAUTS))
    return re.sub("([aou])e|aa", lambda match: match[0][0], re.sub(r"[\W_]", "", text))


def name_parts(name):
    return [part for component in name for part in re.split("[ -]|van der ", component) if len(part) > 1]
