"""The names of a header are replaced in reports however people write them, and ordinary words stay."""

import contextlib
import io
import re
import string
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("pydicom")

from medclip.data.dataset import Split
from medclip.data.deidentify import DicomConfig, redact_report
from medclip.data.name_matching import is_ordinary
from medclip.data.prepare import prepare
from medclip.data.prepare_config import PrepareConfig
from medclip.data.stats.report import write_report
from support.dicom_files import dicom, gray_ramp, write_dicom
from support.spellings import letters_of, name_parts, nfd, planted_studies, strip_accents


def redact(report, **attributes):
    """A report without what a header of these attributes names."""
    return redact_report(report, dicom(None, SpecificCharacterSet="ISO_IR 192", **attributes))[0]


NAMES = st.text(string.ascii_letters, min_size=3, max_size=12).map(str.capitalize)


@pytest.mark.parametrize("word", ["ـ", "ـــ", "ـ\u064e"])  # Arabic's line between letters, and a vowel sign on it
def test_a_word_of_marks_alone_hides_no_name_and_is_none(word):
    assert redact(f"{word} Doe: no nodule", PatientName=f"Doe^{word}").endswith("___: no nodule")
    assert redact(f"no {word} nodule", PatientName="Doe^Jane") == f"no {word} nodule"


@given(family=NAMES, given_name=NAMES, before=st.text(max_size=20), after=st.text(max_size=20))
def test_a_name_never_stays_as_a_word(family, given_name, before, after):
    assume(not is_ordinary(family) and not is_ordinary(given_name))  # "far" stays where nothing says that it is a name
    left = redact(f"{before} {given_name} {family}, {family.upper()} {after}", PatientName=f"{family}^{given_name}")
    words = {word.strip(string.punctuation).casefold() for word in left.split()}
    assert not {family.casefold(), given_name.casefold()} & (words - {""})


SPELLINGS = [  # a name in the header, as people write it in a report
    ("Müller^Jörg", "Herr Müller; MÜLLER; Mueller; MUELLER, JOERG; Muller; Jorg Muller; müller's; Müllers"),
    ("Müller^Jörg", nfd("Jörg Müller; MÜLLER")),
    (nfd("Müller^Jörg"), "Jörg Müller; Mueller"),
    ("Mueller^Joerg", "Jörg Müller; MÜLLER"),
    ("Muller^Jorg", "Jörg Müller; Mueller"),
    ("M\u00c3\u00bcller^Jan", "Müller; Jan Mueller"),  # UTF-8 read as Latin-1
    ("Müller", "M&uuml;ller; M&#252;ller; Mü\u00adller; Mü\u200bller; ＭÜＬＬＥＲ"),
    ("Strauß^Söhnke", "STRAUSS; Strauss, Soehnke; Sohnke; strauß; STRAUẞ"),
    ("Ødegård^Bjørn", "Oedegaard; Odegard; Bjorn Ødegård; BJØRN; Bjoern"),
    ("Oedegaard^Bjoern", "Ødegård; Bjørn"),
    ("Łukaszewski^Wałęsa", "Lukaszewski; WAŁĘSA; Walesa"),
    ("Dvořák^Jiří", "Dvorak; JIŘÍ DVOŘÁK; Jiri"),
    ("Nguyễn^Thị Hương", "Nguyen Thi Huong; NGUYỄN; Hương Nguyễn"),
    ("Ærø^Sæby", "Aeroe; Saeby; ÆRØ"),
    ("Işık^Çağlar", "IŞIK; Isik; ışık, ÇAĞLAR; Caglar; Çaglar IŞIK"),
    ("İNCİ^Yiğit", "İnci; inci; YİĞİT; Yigit"),
    ("Παπαδόπουλος^Γιώργος", "ΠΑΠΑΔΟΠΟΥΛΟΣ; Παπαδοπουλος; ΓΙΩΡΓΟΣ ΠΑΠΑΔΟΠΟΥΛΟΣ; παπαδόπουλος"),
    ("Королёв^Артём", "КОРОЛЕВ; Королев А.; Артем Королёв"),
    ("O'Brien^Pat", "O'Brien; O’Brien; OBrien; O BRIEN; O`Brien; Pat O’Brien’s; Oʼbrien; o'brien; O´Brien"),
    ("O’Brien^Pat", "O'Brien; OBRIEN, PAT"),
    ("OBrien^Pat", "O'Brien; O’BRIEN"),
    ("D'Angelo^Nicolò", "D’Angelo; DANGELO; Nicolo; Nicolo' D'Angelo"),
    ("García López^María José", "García López, María José; María José García; López; GARCIA-LOPEZ; M. J. García López"),
    ("García López^María José", "Garcialopez; Maria-Jose; López García; José; García L., M.J."),
    ("García López, María José", "María José García López; Garcia; Jose"),
    (
        "Smith-Joneson^Jean-Pierre",
        "Smith Joneson; Joneson; J.-P. Smith-Joneson; Jeanpierre; JEAN PIERRE; Smith‐Joneson",
    ),
    ("van der Berghe^Jan", "van der Berghe; VAN DER BERGHE, J.; Vanderberghe; J. v. Berghe; Berghe, Jan van der"),
    ("Vanderberghe^Jan", "Jan van der Berghe"),
    ("de la Cruz^Ana Lucía", "De La Cruz; DELACRUZ; dela Cruz; Ana Lucia de la Cruz; Cruz, A. L."),
    ("Doe^Jane^Q^Dr.^Jr.", "Dr. Jane Q. Doe Jr.; DOE, JANE Q; J. Doe; J.Q. Doe; Doe J; Doe, J.; JANE_DOE; Doe^Jane"),
    ("Doe^Jane", "JaneDoe; JDoe; DOEJ; DOE\nJANE; Doe-\nJane; Doe/Jane; 1Doe2; doe's; Doe’s; DoeJane"),
    ("McDonald^Jane", "MacDonald; Mc Donald; Mac Donald; MCDONALD"),
    ("Smith^John", "smith's; Smiths; SMITH; smith; Mr Smith; Smith, J.M."),
    ("Brown^Rose", "Brown; brown; Rose"),
    ("Lê^Hồ", "Lê; Hồ; Le, Ho; Lê Hồ"),
    ("Al-Hassan^Abd", "Al Hassan; al-Hassan; ALHASSAN; Hassan"),
    ("王^小東", "王小東; 王 小東; 患者王小東，男; 王^小東; 小東; 王　小東; 小東王; 王先生; 王 小 東; 王・小東"),
    ("王小東", "王小東; 王 小東; 小東"),
    ("王 小東", "王小東; 小東 王"),
    ("Wang^XiaoDong=王^小東", "王小東; Wang Xiaodong; Xiao-Dong Wang; XIAO DONG; Wang XD; X. Wang"),
    ("Wang^Xiao Dong", "Wang Xiaodong; Xiaodong Wang"),
    (
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
        "山田太郎; 山田; 太郎; やまだ たろう; ヤマダタロウ; ﾔﾏﾀﾞ ﾀﾛｳ; Yamada; Tarou",
    ),
    ("ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう", "山田さん; ヤマダさん; やまだ　たろう様"),
    ("山田太郎", "山田; 太郎; 山田 太郎"),
    ("Kim^Chulsoo=金^哲秀=김^철수", "김철수; 김 철수; 철수; 김철수는; 김씨; 金哲秀; Kim Chul-soo; Kim Chul Soo"),
    ("김^철수", nfd("김철수; 철수")),
    ("สมชาย^ใจดี", "สมชาย ใจดี; นายสมชายใจดี"),
    ("علي^محمد", "محمد علي; مُحَمَّد"),
    ("כהן^יעקב", "יעקב כהן"),
    ("Li^Wei", "Dr. Li; Li Wei; LI, WEI; W. Li"),
    ("Novák^Jan", "Nováka; Novákovi; Novákem; NOVÁKOVI; Nováková; Novakove; Novákovou"),
    ("Ivanov^Pavel", "Ivanova; Ivanovu; Ivanovym; Pavla; PAVLOVI"),
    ("Ivanova^Anna", "Ivanov; Ivanovoy; Ivanovou; Anny; Annou"),
    ("Nováková^Jana", "Novákové; Novákovou; Novák; Novákovi; Janu"),
    ("Marek^Kowalski", "Marka; Markovi; Kowalskiego; Kowalska; Kowalskiej; Kowalską"),
    ("Полянский^Пётр", "Полянского; Полянскому; Полянской; Петра; ПЕТРУ"),
    ("Иванов^Андрей", "Иванову; Ивановым; Ивановой; Андрея; Андрею"),
    ("Müller^Jörg", "Müllers; Jörgs; MÜLLERS"),
    ("Pan^Lord", "Dr. Pan; Lord Pan; PAN, LORD"),
]


@pytest.mark.parametrize(("name", "spellings"), SPELLINGS)
def test_a_name_is_replaced_however_it_is_written(name, spellings):
    ds = dicom(None, SpecificCharacterSet="ISO_IR 192", PatientName=name)
    for spelling in spellings.split("; "):
        report = f"Chest film. No effusion, {spelling}, 7 mm nodule."
        redacted, counts = redact_report(report, ds)
        rest = re.sub(r"Chest film\. No effusion, |, 7 mm nodule\.", "", redacted)
        rest = re.sub(r"\b(?:Dr|Herr|Jr|Lord|Mr|Mac|M)\b|___|\W|’?s\b|[12患者男様さん는]", "", rest)
        assert rest in ("", "씨", "은", "は", "นาย", "先生"), (name, spelling, redacted)
        assert redacted.startswith("Chest film. No effusion, ")
        assert redacted.endswith(", 7 mm nodule.")
        assert counts["PatientName"] >= 1


@pytest.mark.parametrize(
    ("name", "report"),
    [
        ("Left^Jane", "Left lung clear. The left hilum. LEFT PLEURA. Lung, left. The Left lung."),
        ("White^Jane", "White matter is normal; the white matter. WHITE MATTER."),
        ("Long^Jane", "Long bones. A long segment. LONG SEGMENT."),
        ("Head^Jane", "CT of the head. Head: normal. HEAD CT. CT Head."),
        ("May^Jane", "Nodule may be benign. In May 2020. May represent atelectasis."),
        ("Young^Jane", "Young woman. A young woman."),
        ("Heart^Jane", "Heart size normal. HEART: normal. The heart."),
        ("Doe^Will", "It will resolve."),
        ("Li^Wei", "Li-ion device, li."),
        ("Gross^Jane", "No gross abnormality. Gross total resection."),
        ("Groß^Jane", "Herz nicht groß. Große Zyste."),
        ("Delgado^Jane", "Intestino delgado normal."),
        ("Chest^X-Ray", "Chest x-ray. The chest."),
        ("de la Cruz^Jane", "Fractura de la costilla. De la rodilla."),
        ("Lord^Jane", "The lord."),
        ("Anonymous", "Anonymous phantom. ANONYMOUS."),
        ("Patient^Test", "The patient had a test. Patient: 7 mm nodule."),
        ("正常", "胸部正常。"),
    ],
)
def test_an_ordinary_word_stays_where_nothing_says_that_it_is_a_name(name, report):
    assert redact(report, PatientName=name) == report


@pytest.mark.parametrize(
    ("name", "report", "redacted"),
    [
        ("White^John", "White, John; JOHN WHITE; john white; J. White; White J", "___; ___; ___; ___; ___"),
        (
            "Left^Jane",
            "Mrs. Left: left lung. Dr. LEFT; Jane left Jane Left.",
            "Mrs. ___: left lung. Dr. ___; ___ left ___.",
        ),
        (
            "White^Jane",
            "Seen by White for cough. White's matter. White, MD.",
            "Seen by ___ for cough. ___'s matter. ___, MD.",
        ),
        ("Head^Jane", "Head normal. Signed: Head", "Head normal. Signed: ___"),
        ("Heart^Jane", "Heart normal.\nDictated by HEART", "Heart normal.\nDictated by ___"),
        ("Young^Jane", "The report of Young says so. Young", "The report of ___ says so. Young"),
        ("Young^Jane", "Normal.\n\nYoung\n", "Normal.\n\n___\n"),
        ("Long^Head", "Long head of the biceps. Head, Long; LONG, HEAD", "Long head of the biceps. ___; ___"),
        ("Doe^Will", "Doe will return. Will Doe; doe will; DOE WILL", "___ will return. ___; ___; ___"),
        ("Li^Wei", "Seen by Li. As in Li, li.", "Seen by ___. As in ___, li."),
        ("Left^Doe", "Seen by Doe. Left lung clear.", "Seen by ___. Left lung clear."),
        ("de la Cruz^Ana", "Cruz de la costilla. Ana de la Cruz.", "___ de la costilla. ___."),
        ("Colón^Jane", "Colón; colon normal.", "___; colon normal."),
    ],
)
def test_an_ordinary_word_is_replaced_where_it_is_a_name(name, report, redacted):
    assert redact(report, PatientName=name) == redacted


@pytest.mark.parametrize(
    ("attributes", "report", "redacted"),
    [
        ({"InstitutionalDepartmentName": "CHEST"}, "CHEST: clear. Chest film.", "CHEST: clear. Chest film."),
        ({"StationName": "Heart"}, "Heart size normal.", "Heart size normal."),
        ({"InstitutionName": "Radiology Department"}, "Radiology department.", "Radiology department."),
        ({"StationName": "CT 1"}, "CT 1 month ago.", "CT 1 month ago."),
        ({"StudyID": "HEAD"}, "HEAD CT.", "HEAD CT."),
        ({"PatientID": "unknown"}, "Cause unknown.", "Cause unknown."),
        ({"InstitutionalDepartmentName": "Chest CT"}, "Chest CT without contrast.", "Chest CT without contrast."),
        ({"InstitutionName": "Hospital"}, "In hospital since May.", "In hospital since May."),
        ({"InstitutionName": "Heart Hospital"}, "At HEART\nHospital: heart.", "At ___: heart."),
        ({"InstitutionName": "St. Mary’s"}, "At St. Mary's and ST. MARYS.", "At ___ and ___."),
        ({"InstitutionName": "Klinikum Köln"}, "Im Klinikum Koeln; " + nfd("Klinikum Köln"), "Im ___; ___"),
        ({"InstitutionName": "臺大醫院"}, "於臺大醫院就診", "於___就診"),
        ({"PatientID": "HEAD4711"}, "Head of HEAD4711.", "Head of ___."),
    ],
)
def test_ordinary_words_of_a_station_or_department_stay(attributes, report, redacted):
    assert redact(report, **attributes) == redacted


@pytest.mark.parametrize(
    ("name", "report", "redacted"),
    [  # with dots wherever they are, as capitals where they sign
        ("Doe^John", "Seen by J. D. for cough; J.D. was told. (D.J.)", "Seen by ___. for cough; ___. was told. (___.)"),
        ("Doe^John", "The JD line. Dictated by JD. Dr. JD: normal.", "The JD line. Dictated by ___. Dr. ___: normal."),
        ("Doe^John", "Normal.\nJD/mk", "Normal.\n___/mk"),
        ("Doe^John", "Normal.\n- JD -\nEnd", "Normal.\n- ___ -\nEnd"),
        ("Doe^John", "A.J.D. Co., J D, jd, j.d., 3J.D.", "A.J.D. Co., J D, jd, j.d., 3J.D."),
        ("Doe^John^Quincy", "J.Q.D. and J. Q. D. signed: JQD", "___. and ___. signed: ___"),
        ("Doe^Ian Emil", "That is, i.e. 7 mm.", "That is, i.e. 7 mm."),
        ("García López^María José", "M.J.G.L. or M. J. G. 5 m.g.", "___. or ___. 5 m.g."),
        ("Иванов^Пётр", "П. И. осмотрен", "___. осмотрен"),
        ("Allen^Paul", "A.P. and P.A. view, read by PA.", "A.P. and P.A. view, read by PA."),
        ("Vox^Lewis", "LV dilated, described by LV function.", "LV dilated, described by LV function."),
        ("Bell^Ann", "A. B. Two panels.", "A. B. Two panels."),
    ],
)
def test_initials_alone_are_replaced_where_they_can_be_nothing_else(name, report, redacted):
    assert redact(report, PatientName=name) == redacted


@pytest.mark.parametrize(
    ("name", "report", "redacted"),
    [
        ("王^偉", "患者王，男。姓名：王 ", "患者___，男。姓名：___ "),
        ("王^偉", "签名：偉", "签名：___"),
        ("王^偉", "王, 7 mm (偉)", "___, 7 mm (___)"),
        ("王^偉", "國王的偉大", "國王的偉大"),
        ("高^小東", "患者高血壓; 高; 小東", "患者高血壓; 高; ___"),
        ("高^小東", "高先生", "___"),
    ],
)
def test_a_lone_ideograph_is_replaced_by_its_place(name, report, redacted):
    assert redact(report, PatientName=name) == redacted


@pytest.mark.parametrize(
    ("name", "report"),
    [
        ("Bell^Carl", "Belly of the muscle. Carina. Aorta."),
        ("Doe^Hans", "Does not cough."),
        ("Long^Jane", "Longa and novaka."),
        ("Novak^Jan", "A novakem in lower case."),
    ],
)
def test_words_that_only_begin_like_a_name_stay(name, report):
    assert redact(report, PatientName=name) == report


def test_ordinary_words_that_stay_are_counted():
    ds = dicom(None, PatientName="Left^Jane", StationName="CHEST")
    counts = redact_report("CHEST: left lung clear, left hilum. Mrs. Left.", ds)[1]
    assert counts == {
        "PatientName": 1,
        "PatientName (ordinary word, not replaced)": 2,
        "StationName (ordinary word, not replaced)": 1,
    }


def test_a_long_report_takes_linear_time():
    """Names and reports made to be slow: repeated parts, no spaces, separators only."""
    ds = dicom(
        None,
        SpecificCharacterSet="ISO_IR 192",
        PatientName="A^A" * 20 + " Left " * 200,
        OtherPatientNames=["王" * 30 + "^東", "-" * 60, "a" * 64, "Left^White", "O'" * 30],
        InstitutionalDepartmentName="CHEST",
        InstitutionAddress="a" + " " * 60 + "'" * 60,
    )
    texts = ["a" * 32768, "a " * 16384, "left white " * 2979, "王" * 32768, "-" * 32768, "A. " * 10922, "\n" * 32768]
    redact_report("warm", ds)
    for text in texts:
        start = time.process_time()
        redact_report(text, ds)
        assert time.process_time() - start < 20  # 0.05 to 0.3 s here


# --- names of many scripts and spellings through the whole preparation


@settings(deadline=None)
@given(planted_studies())
def test_no_spelling_of_a_name_is_left_in_a_report(study):
    header, spellings, name = study
    ds = dicom(None, SpecificCharacterSet="ISO_IR 192", PatientName=header)
    for spelling in spellings:
        redacted, counts = redact_report(f"Film of the chest, {spelling}; no effusion.", ds)
        assert not [part for part in name_parts(name) if letters_of(part) in letters_of(redacted)]
        assert redacted.startswith("Film of the chest, ")
        assert redacted.endswith("; no effusion.")
        assert counts["PatientName"] >= 1


CASES = [  # of a noun: nominative and what follows it in Czech, Polish, Russian
    ("{}ov", "{}ova {}ovu {}ovi {}ovem {}ovym"),
    ("{}ák", "{}áka {}ákovi {}ákem {}áku {}áková {}ákové"),
    ("{}ková", "{}kové {}kovou {}kovi"),
    ("{}ski", "{}skiego {}skiemu {}skim {}ska {}skiej"),
    ("{}ský", "{}ského {}skému {}ským {}ská"),
]
STEMS = st.text("zqwxkjv", min_size=4, max_size=7).map(str.capitalize)


@given(STEMS, STEMS, st.sampled_from(CASES), st.sampled_from([str, str.upper, nfd, strip_accents]))
def test_no_case_of_a_name_is_left_in_a_report(stem, given_name, cases, respell):
    nominative, forms = cases
    name = f"{nominative.format(stem)}^{given_name}"
    for form in forms.replace("{}", stem).split():
        left = redact(respell(f"Film, {form}; 7 mm"), PatientName=name)
        assert left == respell("Film, ") + "___" + respell("; 7 mm")


INITIALS = st.sampled_from("ZQWXKJV")


@given(INITIALS, INITIALS, st.sampled_from(["{}. {}.", "{}.{}.", "{}.-{}."]))
def test_initials_with_dots_are_never_left(family, given_name, form):
    name = f"{family}zzq^{given_name}qqz"
    for first, second in ((family, given_name), (given_name, family)):
        assert redact(f"Film, {form.format(first, second)} 7 mm", PatientName=name) == "Film, ___. 7 mm"


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(planted_studies())
def test_no_spelling_of_a_name_is_in_any_byte_that_preparation_writes_or_prints(study):
    header, spellings, name = study
    with tempfile.TemporaryDirectory() as scratch:
        folder, out, key = (Path(scratch) / part for part in ("studies", "out", "key"))
        for number, spelling in enumerate(spellings):
            ds = dicom(
                gray_ramp(),
                SpecificCharacterSet="ISO_IR 192",
                PatientName=header,
                PatientID="4711471",
                StudyInstanceUID=f"1.2.{number}",
            )
            write_dicom(ds, folder / f"{number}.dcm")
            report = f"Film of the chest {number}, {spelling}; no effusion."
            (folder / f"{number}.txt").write_text(report, encoding="utf-8")
        screen = io.StringIO()
        with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
            config = PrepareConfig(studies=DicomConfig(pseudonym_key=key))
            dataset = prepare(str(folder), out, config, num_workers=1)
            write_report(out, near_images=False)
        captions = [caption for split in dataset["splits"] for caption in Split(out, split).column("caption")]
        outputs = [file.read_bytes().decode(errors="ignore") for file in out.rglob("*") if file.is_file()]
    assert len(captions) == len(spellings)
    assert all("___" in caption for caption in captions)
    shown = [*captions, screen.getvalue()]
    for part in name_parts(name):
        assert not [text for text in shown if letters_of(part) in letters_of(text)], (header, spellings)
        forms = {form(part) for form in (str, str.upper, str.lower, nfd, strip_accents)}
        assert not [form for form in forms for text in outputs if len(form.encode()) > 4 and form in text]
