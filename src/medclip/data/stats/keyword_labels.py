"""Modality and organ by keywords of the caption, for pairs that nobody has labeled."""

from __future__ import annotations

import re

# A star stands for any letters. Classes are named as in ROCO's labels.csv, which was itself made from captions:
# agreement with it (tests/data/stats/test_keyword_labels.py) is agreement with another reader of the same text.
MODALITY_KEYWORDS = {
    "nuclear": (
        "pet, scintigra*, spect, bone scan, positron, radionuclide, 99m*, tc-99m, 99tc*, tc99m, radiotracer, "
        "*fluorodeoxyglucose"
    ),
    "non_radiology": (
        "sem, tem, scanning electron, electron micro*, *microscop*, micrograph*, histolog*, histopatholog*, "
        "optical coherence, oct, slit-lamp, fundus*, macula*, fluorescein, ffa"
    ),
    "mammography": "mammogra*, mlo, craniocaudal, tomosynthesis",
    "mri": (
        "mri, mris, mr, mra, mrcp, cmr, rmn, irm, magnetic resonance, t1, t2, t1w*, t2w*, flair, stir, dwi, "
        "diffusion-weighted, diffusion tensor, *gadolinium*, tractography, steady state free precession, "
        "steady-state, proton density"
    ),
    "ct": "ct, cts, cect, ncct, cta, hrct, cbct, mdct, ctpa, tomogra*, tomodensitom*, scanner, tdm, tac, hounsfield",
    "ultrasound": (
        "ultraso*, sonogra*, *echocardiogra*, *echogra*, echo, doppler, usg, us, duplex, tte, tee, trus, eus, "
        "ivus, transvaginal, parasternal, apical four, subcostal, b-mode, transesophageal, transoesophageal, "
        "transthoracic"
    ),
    "fluoroscopy": (
        "*fluoroscop*, barium, *esophagram*, *esophagogra*, swallow*, cystogra*, *cystourethro*, "
        "*urethrogra*, ercp, *cholangiogra*, gastrografin, upper gi, pyelogra*, urogra*, enema, fistulogra*, "
        "arthrogra*, myelogra*, hysterosalping*, sinogra*, *cholangiopancreatogra*, pancreatogra*"
    ),
    "angiography": "*angiogra*, arteriogra*, dsa, aortogra*, ventriculogra*, catheteri*ation, venogra*",
    "xray": (
        "x-ray*, xray*, x ray*, *radiogra*, panorex, iopa, roentgen*, skiagra*, panoramic, orthopantomo*, "
        "opg, cxr, cephalo*, periapical, bitewing, plain film*, plain abdominal, chest film"
    ),
}
ORGAN_KEYWORDS = {
    "fetal": "fetal, fetus*, foetal, foetus*, gestation*, placent*, umbilical, intrauterine",
    "breast": "breast*, mammogra*, nipple, mlo, craniocaudal",
    "heart": (
        "heart*, transesophag*, transoesophag*, transthoracic echo*, tte, tee, cardia*, cardio*, coronary, "
        "*ventric*, atrial, atrium, mitral, aortic valve, *echocardiogra*, *pericardi*, *myocard*, tricuspid, "
        "aortic root, lad, rca, lv, rv, la, parasternal, interatrial"
    ),
    "chest_lung": (
        "chest, lung*, pulmon*, *thora*, pleura*, mediastin*, *bronch*, trache*, hilar, cxr, pneumo*, rib, "
        "ribs, *diaphragm*"
    ),
    "teeth_jaw": (
        "tooth, teeth, dental, dent*, iopa, jaw*, *mandib*, maxilla, molar*, incisor*, canine*, premolar*, "
        "panoramic, orthopantomo*, opg, periapical, bitewing, cephalo*, root canal*, alveolar bone, implant*, "
        "condyl*"
    ),
    "brain_head": (
        "brain*, intracerebr*, cerebr*, *cerebell*, head, skull*, *crani*, frontal lobe*, temporal lobe*, "
        "parietal, occipital, lateral ventricle*, *thalam*, hippocamp*, pituitary, cortex, ganglia, white "
        "matter, subdural, subarachnoid, hydrocephal*, flair, pons, sella*, corpus callosum, putam*, caudate "
        "nucle*, mca"
    ),
    "spine": (
        "spine, spinal, lumbosacral, *vertebr*, lumbar, cervical spine, *scolio*, *kypho*, sacrum, sacral, "
        "disc, disk, laminectomy, cauda equina, *spondyl*, c1*, c2*, c3*, c4*, c5*, c6*, c7*, l1*, l2*, l3*, "
        "l4*, l5*, thoracolumbar, pedicle*"
    ),
    "neck_face": (
        "neck, *thyroid*, carotid*, orbit*, sinus, sinuses, facial, face, nasal, *laryn*, *pharyn*, parotid, "
        "eye, eyes, globe, optic nerve*, salivary, temporal bone*, mastoid*, jugular, submandibular, tongue, "
        "ethmoid*, ear, nasopharyn*"
    ),
    "hip": "hip, hips, acetabul*, femoral head*, total hip, tha",
    "limb": (
        "knee*, cruciate, menisc*, malleol*, ankle*, foot, feet, leg, legs, tibia*, femur*, humer*, radius, "
        "ulna*, elbow*, wrist*, hand, hands, finger*, thumb, shoulder*, forearm*, thigh*, calf, fibula*, "
        "patell*, tendon*, metatars*, metacarp*, scaphoid, popliteal, achilles, *calcane*, clavic*, scapul*, "
        "toe, toes, phalan*, talus, arm, femoral shaft, limb*"
    ),
    "pelvis": (
        "pelvi*, ischi*, inguin*, transvaginal, uter*, ovar*, bladder, prostat*, rectum, *rectal, cervix, "
        "vagina*, testi*, scrot*, adnex*, iliac, pubic, *endometri*, penis, penile, urethr*, *myometri*, "
        "perineal, perianal, cystogra*"
    ),
    "abdomen": (
        "*abdom*, *oment*, hernia*, liver, *hepat*, kidney*, *renal, *renal*, *pancrea*, spleen, splen*, "
        "bowel, stomach, *gastri*, gallbladder, bile, biliar*, *duoden*, *jejun*, ileum, ileal, colon*, "
        "append*, mesenter*, *periton*, *intestin*, portal, intussuscep*, cecum, caecum, sigmoid, ascites, "
        "*esophag*, celiac, ureter*, ivc, vena cava, ercp"
    ),
}


def _compile_keywords(keywords: str) -> re.Pattern[str]:
    """One pattern for the keywords of a class, over lower case. Those without a leading star start at a word."""
    words = [word.strip() for word in keywords.split(",")]
    ends = {word: "" if word.endswith("*") else r"(?!\w)" for word in words}
    forms = {word: re.escape(word.strip("*")).replace(r"\*", r"\w*") + end for word, end in ends.items()}
    from_start = "|".join(form for word, form in forms.items() if not word.startswith("*"))
    anywhere = [form for word, form in forms.items() if word.startswith("*")]
    return re.compile("|".join([rf"(?<!\w)(?:{from_start})", *anywhere]))


_PATTERNS = {
    kind: {label: _compile_keywords(keywords) for label, keywords in table.items()}
    for kind, table in (("modality", MODALITY_KEYWORDS), ("organ", ORGAN_KEYWORDS))
}
KINDS = tuple(_PATTERNS)


def keyword_label(kind: str, caption: str) -> str:
    """The class of `kind` ("modality" or "organ") with most keywords in a caption; "" where it has none.

    Ties go to the class named first: "CT angiography" is CT.
    """
    best, best_rank, lower = "", (0, 0), caption.lower()
    for label, pattern in _PATTERNS[kind].items():
        positions = [match.start() for match in pattern.finditer(lower)]
        if positions and (rank := (-len(positions), positions[0])) < best_rank:
            best, best_rank = label, rank
    return best
