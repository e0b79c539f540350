"""Words of every report that are also names of people, departments and stations.

Such a word alone identifies nobody and would take the meaning out of every report that holds it. Lower case; those with
letters outside ASCII are meant as written. Languages: English, and what is usual in German, French, Spanish,
Portuguese and Italian reports and is a family name there.
"""

from __future__ import annotations

_CLINICAL = """
abdomen abdominal abnormal abscess acute adrenal air airway ankle anterior aorta aortic apex apical appendix arch area
arm artery atrium axial axilla axillary back base basal bed bilateral bladder blood body bolus bone border bowel brain
brace breast bronchus calcification calf canal cancer cardiac carotid carpal catheter cavity cell cells central
cervical chest chronic clavicle clear clot coil colon column comparison conclusion consolidation contrast cord core
coronal coronary cortex cough cranial cuff cyst deep defect density diagnosis diaphragm dilated disc discharge disease
disk distal dorsal dose drain duct edema effusion elbow emergency enlarged epidural erect examination exam extremity
eye face facet fat feet femoral femur fever fibula field film finding findings finger fissure flank fluid focal fold
foot forearm fracture frontal fundus fusion gas gland graft hand head heart heel hernia hip history hilar hilum horn
humerus imaging impression indication infant inferior injury intact joint kidney knee labrum lateral left leg lens
lesion level ligament limb line lines lip liver lobe lower lumbar lumen lung lungs lymph mass marrow matter medial
median mediastinum meniscus midline mild moderate mouth muscle nail nasal neck needle nerve node nodes nodule normal
nose oblique opacity oral orbit organ pain palate pancreas patch patella patient pelvis pelvic pin pineal plain plate
pleura pleural pneumonia pneumothorax pole pons posterior portable portal pulmonary process prone prostate proximal
pulse radial radius rectum recommendation renal report rib ribs right ring root sac sagittal scan scar scalp sella
screw septum severe shaft shin shoulder shunt sinus skin skull spin spinal spine spleen stem stent stenosis stomach
stone stroke study superior supine surgery technique temporal tendon test thigh thorax thoracic thumb thyroid tibia tip
tissue toe tongue tooth trachea tract transverse trauma tube tumor ulna ultrasound unit upper ureter uterus valve varus
vein venous ventral ventricle vertebra vessel view views wall wire wound wrist x-ray xray radiograph radiographs
radiography radiology radiological diagnostic nuclear medicine medical mri tomography fluoroscopy mammography mammogram
angiography cardiology neurology oncology orthopedics orthopaedics pediatrics paediatrics pediatric surgical urology
gynecology neuro neuroradiology outpatient inpatient ambulatory intensive care icu er ed ward theatre department dept
division section service services room suite scanner station workstation console mobile main default unknown none
anonymous anonymized anonymised deidentified removed redacted name patients phantom qa research clinical trial january
february march april may june july august september october november december mon tue wed thu fri sat monday tuesday
wednesday thursday friday saturday sunday jan feb mar apr jun jul aug sep sept oct nov dec mr ct us pt nm cr dr dx xa
rf mg ap pa lat ll rl cc ml mm cm kg mcg hu iv im po od os ou pe tb vs no yes st sp ms l r c t s ivc svc cta mra pet
spect bmd xr cxr kub thoraxabdomen sternal costal hepatic biliary gastric lobar herz lunge lungen kopf hals brust bauch
bein rippe rippen becken links rechts linke rechte linker rechter beidseits befund beurteilung abteilung radiologie
neuroradiologie nuklearmedizin innere medizin chirurgie notaufnahme ambulanz klinisch knochen wirbel schulter knie mai
juni juli coeur poumon poumons tete gauche droit droite imagerie urgences genou corazon corazón pulmon pulmón pulmones
torax tórax cabeza mano pie izquierdo izquierda derecho derecha mama rodilla delgado grueso campos campo radiologia
radiología urgencias servicio hallazgos impresion impresión coracao coração pulmao pulmão direito esquerdo direita
esquerda cuore polmone destro destra sinistro sinistra torace urgenza reparto ray rays angio endoscopy mammo ortho onco
sono sonography echo echocardiography gastroenterology nephrology pulmonology pneumology rheumatology dermatology
hematology obstetrics neurosurgery dental ophthalmology pathology physiotherapy rehabilitation vascular interventional
musculoskeletal paediatric roentgen röntgen radiodiagnostico radiodiagnóstico calculus cardiomegaly atelectasis
aneurysm hemorrhage infarct infection inflammation appendicitis bronchi chamber implant lymphoma metastasis oedema
pacemaker prosthesis scoliosis sclerosis septal sternum sutures swelling syndrome tracheal vertebral hilus lingula
lingual
"""
_ORDINARY = """
a able about above absent across after again against age all almost alone along also although always am an and angle
another any anyone apart appear are around art as ask at away bad ball band bar bare be beam bean bear beat became
because become been before began begin behind being belly below bend beneath best better between beyond big bill birth
bite black blank blind block blue bond both bottom bow box branch break bright bring broad broken brush but by cage
call came can cannot case cast cause certain chair change chase check chin circle clean close coarse cold come common
complete cone constant cool cope corner could count course cover cross crown cup current curve cut dark date day days
dead death decrease delay did different do does done door double doubt down draft drop dry due dull during each early
east easy edge eight either eleven else empty end enough entire equal even ever every except extra fair fall false far
fast father feel fell felt few fewer fine fire first five flat flow follow follows for form forth found four free fresh
from full further gain gap gate general get given glass go gone good got grade grain grave gray great grey gross ground
growth had hair half hard hardly has have he heal healthy heat held help her here high him his hit hold hole hollow
home hot hour how however ice if image in inch increase inner inside into iron is it its just key know known lack laid
large last late later latter lead lean least led length less let lie life light like likely lime limit list little load
long longer look loop loose loss lot low made major make male man many mark marked marker marks match mean means mid
middle might minor mix more most mostly motion move much must my narrow near need neither never new newborn next night
nine nor not note noted notes now number of off often old on once one only onto open or order other our out outer over
own pale part parts past path pattern peak per perhaps phase piece pit place plane play plus point poor port position
possible post present press previous prior pure put raise range rapid rare rate raw reach read ready real rear recent
red rest rigid rise rising rod rough round row same save saw second see seen self sense set seven shadow shallow shape
sharp she shift short should show shows side sign signs since site six size slice slight slow small smooth so soft
solid some space spot square stage stable start state status stay step steep stiff still stop straight strain strength
stretch strict strong such sudden sure swallow taken taper tear ten than that the their them then there these they
thick thin thing third this those though three through thus tight till time to together tone too top total touch trace
track tree true turn twin two under until up upon use usual very walk was waste water wave way we weak wear week weeks
weight well were wet what when where which while white who whole why wide will wish with within without woman would
wrong year years yet young younger your zero klein kleine kleiner grosse groß große großer lang lange langer kurz kurze
breit jung alt alte neu neue stark starke frei ja nein und oder mit ohne der die das petit blanc blanche court fort bon
le la les un une et avec sans grande leve sin con el los las y o pequeno forte com sem nero lungo
"""
_ABBREVIATIONS = """
aaa abd abi ac aca acl acom adc aica ais al alif als ant ap art asa asd ats av avf avm avn ba bg bi bl bm bmi bp br bs
bsa ca cabg cad cap cat cbd cc cd cf cfa chd chf ci cia cm cmv cn cns co copd cp cpa cr crl crp cs csd csf ct cta ctv
cv cvc cvp cx da db dc dd de di dip dl dm dp ds dt dvt dw dwi ea ec ecg echo ed edh ef eg ekg er es esr et etc eu eus
ev fb fdg fe fh fl fn fna fs ft ga gb gbm gcs gd ge gerd gfr gi gist gu hb hc hcc hd he hf hg hiv hla hp hr hrct hu hx
ia ica icu id ie ii ij im ima ip ipf iq is iu iv ivc ivp ivu iz kb kv la lac lad lao lbbb lc lca lcx ld le lf li lij
lm lmp ln lp ls lt ltr lu lv lvef ma mb mca mcl mcp md me mes mf mh mi ml mm mp mpr mr mra mrcp mri mrv ms mt mtp mv
na nb nc ng nhl nj nm no np ns nt oa ob om op or os pa pc pca pcl pcom pd pda pe peg pet ph pi pica pip pl pm pn po pp
pr ps psa pt ptc pv pvns pw px ra rad rai rao rbc rca re rf rl rll rml ro roi rp rt rul rv rx sa sah sbo sc sca sdh se
si slap sle sma smv sn sol sp ss st std stir sv svc svt t tb te tee ti tia tips tkr tm tmj tnm tof tr ts tse tte tv tx
ue ui uk un up upj ur us usa ut uti uv va vb vc vp vs vsd vv wbc wm wt xi xr xx xy zn
"""
_ORDINARY_IDEOGRAPHS = """
正常 異常 异常 患者 胸部 頭部 腹部 骨折 中心 高度 大小 左右 上下 明らか 정상 환자 흉부
"""
_USUAL_IDEOGRAPHS = (
    "一二三四五六七八九十百千万萬余餘半大小多少高低長长短新古老上下左右前後后内外中央東西南北東东正無无有不未可全部方平安明清"
    "単單元本主心肺肝胃腸肠脾腎肾胆膽骨血肉皮手足頭头面目眼口耳鼻舌歯齿牙首頚颈胸腹腰背腿指男女子人白黒黑紅红赤青黄黃灰金銀银鉄铁"
    "水火木土石山川田日月年時时分秒号號度点點成解常向和温溫寒冷熱热管房陽阳陰阴伸曲毛何液气氣空腔壁影像片囊肿腫瘤癌炎性症病例期型"
    "군좌우상하전후내외중대소정무유남여"
)
_FACILITY = """
hospital hospitals clinic clinics center centre university institute infirmary practice krankenhaus klinikum klinik
hopital hôpital clinique clinica clínica ospedale policlinico
"""


def _word_set(words: str) -> frozenset[str]:
    return frozenset(words.split())


CLINICAL = _word_set(_CLINICAL)
"""Words whose capital letter says nothing: sections, labels and table heads begin with them."""
ORDINARY = CLINICAL | _word_set(_ORDINARY)
"""CLINICAL, and words whose capital letter in mid-sentence says that a name is meant."""
ABBREVIATIONS = _word_set(_ABBREVIATIONS)
"""Two letters or more that a report writes in capitals and that are no initials."""
ORDINARY_IDEOGRAPHS = frozenset((*_ORDINARY_IDEOGRAPHS.split(), *_USUAL_IDEOGRAPHS))
"""Names that are words of a report where nothing beside them says otherwise."""
FACILITY = _word_set(_FACILITY)
"""Words that make a name of the ordinary words beside them: Heart Hospital, Chest Clinic."""
TITLES = _word_set(
    "dr drs mr mrs ms mx miss prof professor doctor sir dame lady lord rev fr frau herr hr doktor mme mlle "
    "monsieur madame docteur sr sra srta señor señora don doña dra dott dottor dottoressa sig signor signora dhr "
    "mevr mw pan pani"
)
SUFFIXES = _word_set("jr sr ii iii iv md phd do mph msc bsc frcr facr mbbs mbchb rn rt med esq dds dvm")
PARTICLES = _word_set(
    "van von der den de del della dei di da do dos das du des la le les los las el al ul bin ibn binti bint abu "
    "abd ben bat ter ten te zu zur zum af av mc mac fitz o d l y e i st san santa saint"
)
GIVEN_NAMES = _word_set("ben al san le mac abu bat el bin st saint santa")
"""Particles that are given names too."""
CUES = _word_set(
    "by signed name patient patients physician radiologist surgeon technologist operator attending resident "
    "referring reader nurse cc von door par por da przez"
)
"""Words before a name: dictated by White."""
