"""Modality and organ, guessed from the words of a caption where nobody has labeled the pair."""

from __future__ import annotations

import re

# A star stands for any letters. The names of the classes are those of ROCO's labels.csv, which was itself made from
# captions: agreeing with it (tests/data/survey/test_guesses.py) is agreeing with another reader of the same words.
MODALITY = {
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
ORGAN = {
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


def _pattern(words: str) -> re.Pattern[str]:
    """One pattern for a row of the tables, over lower case. Whole words are tried at beginnings of words only."""
    ways = [re.escape(word.strip()).replace(r"\*", "*") for word in words.split(",")]
    ends = [way.strip("*").replace("*", r"\w*") + ("" if way.endswith("*") else r"(?!\w)") for way in ways]
    whole = "|".join(end for way, end in zip(ways, ends, strict=True) if not way.startswith("*"))
    inside = [end for way, end in zip(ways, ends, strict=True) if way.startswith("*")]
    return re.compile("|".join([rf"(?<!\w)(?:{whole})", *inside]))


_PATTERNS = {
    kind: {name: _pattern(words) for name, words in table.items()}
    for kind, table in (("modality", MODALITY), ("organ", ORGAN))
}


def keyword_label(kind: str, caption: str) -> str:
    """The class of `kind` ("modality" or "organ") that most words of a caption speak for; "" where none does.

    Of classes named equally often the one named first: "CT angiography" is CT.
    """
    best, least, lower = "", (0, 0), caption.lower()
    for name, pattern in _PATTERNS[kind].items():
        places = [found.start() for found in pattern.finditer(lower)]
        if places and (rank := (-len(places), places[0])) < least:
            best, least = name, rank
    return best
