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
stone stroke study superior supine surgery technique temple temporal tendon test thigh thorax thoracic thumb thyroid
tibia tip tissue toe tongue tooth trachea tract transverse trauma tube tumor ulna ultrasound unit upper ureter uterus
valve varus vein venous ventral ventricle vertebra vessel view views wall wire wound wrist x-ray xray radiograph
radiographs radiography radiology radiological diagnostic nuclear medicine medical mri tomography fluoroscopy
mammography mammogram angiography cardiology neurology oncology orthopedics orthopaedics pediatrics paediatrics
pediatric surgical urology gynecology neuro neuroradiology outpatient inpatient ambulatory intensive care icu er ed
ward theatre department dept division section service services room suite scanner station workstation console mobile
main default unknown none anonymous anonymized anonymised deidentified removed redacted name patients phantom qa
research clinical trial january february march april may june july august september october november december mon tue
wed thu fri sat sun monday tuesday wednesday thursday friday saturday sunday jan feb mar apr jun jul aug sep sept oct
nov dec mr ct us pt nm cr dr dx xa rf mg ap pa lat ll rl cc ml mm cm kg mcg hu iv im po od os ou pe tb vs no yes st sp
ms l r c t s ivc svc cta mra pet spect bmd xr cxr kub thoraxabdomen sternal costal hepatic biliary gastric lobar herz
lunge lungen kopf hals brust bauch bein rippe rippen becken links rechts linke rechte linker rechter beidseits befund
beurteilung abteilung radiologie neuroradiologie nuklearmedizin innere medizin chirurgie notaufnahme ambulanz klinisch
knochen wirbel schulter knie mai juni juli coeur poumon poumons tete gauche droit droite imagerie urgences genou
corazon corazón pulmon pulmón pulmones torax tórax cabeza mano pie izquierdo izquierda derecho derecha mama rodilla
delgado grueso campos campo radiologia radiología urgencias servicio hallazgos impresion impresión coracao coração
pulmao pulmão direito esquerdo direita esquerda cuore polmone destro destra sinistro sinistra torace urgenza reparto
"""
_ORDINARY = """
a able about above absent across after again against age all almost alone along also although always am an and angle
another any anyone apart appear are around art as ask at away bad ball band bank bar bare bark barker bass bay be beam
bean bear beat became because become been before began begin behind being bell belly below bend beneath bent best
better between beyond big bill bird birth bishop bit bite black blank blind block bloom blue blunt board boat bold bond
book born both bottom bow bowl box boy branch brand bread break bridge bright bring broad broken brook brother brown
brush build bull burden burn burns bush butcher but by cage call calm came camp can cane cannot cap carpenter carry
carter case cast cause certain chain chair chance change chase check cherry chin church circle city clay clean close
coal coarse coat cold come common complete cone constant cook cool cope copper corner could count course cove cover
craft crisp crop cross crow crown cup current curve cut daily dark date day days dead dean death decrease delay did
different do does done door double doubt down draft draw dray drop dry due dull during each early east easy edge eight
either eleven else empty end enough entire equal even ever every except extra fair fall false far fast father feel fell
felt few fewer fill fine fire first fish five flat flow flowers fly follow follows for force ford form forth found
fountain four fox free fresh from frost full further gain gap gate gates gave general gentle get girl give given glass
go gold gone good got grade grain grand grant grass grave gray great green grey gross ground grow growth guide had hair
half hall ham hard hardly has have hay hazel he heal healthy heath heat held help her here high hill him his hit hold
hole hollow home hook hope hot hour house how however huge hunt hunter hurt ice if ill image in inch increase inner
inside into iron is it its jay jewel jolly joy just keen keep key kind king knight knot know known lace lack laid lake
lamb land lane large last late later latter law lay lead leaf lean least led length less let lie life light like likely
lime limit list little live load lock long longer look loop loose loss lot love low lucas made major make male man many
mark marked marker market marks marsh mason master match mean means meek men mere mid middle might mile mill miller
mind minor mist mix moon moor more moss most mostly motion mount mountain move much must my narrow near need neither
never new newborn next nice night nine nor north not note noted notes now number nurse oak of off often old olive on
once one only onto open or order other our out outer over own pace page pair pale paper park part parts past path
pattern peace peak pearl penny per perhaps phase piece pike pile pink pipe pit pitt place plane plant play plus point
pond pool poor pope port position possible post potter pound power present press previous price prior proof pure put
quick quiet rain raise range rapid rare rate raw ray rays reach read ready real rear recent red reed rest rice rich
ride rigid rise rising river road rock rod rose rough round row royal rule run rush sage same sand save saw say sea
second see seen self send sense set seven shade shadow shallow shape sharp she shell shepherd shift short should show
shows side sign signs silver since singer site six size sky slice slight slow small smart smith smooth snow so soft
solid some son soon sore south space speck spot spring square stage stable stack stand star start state status stay
steel step stern steep stiff still stock stop storm straight strain strange stream street strength stretch strict
strong such sudden summer sure swallow swan sweet swift taken tall taper tear tell ten than that the their them then
there these they thick thin thing third this those though three through thus tie tight till time to together told tone
too top total touch tower town trace track train tree true try turn turner twin two under until up upon use usual
valley vast very vice wade wait walk walker ware warm was wash waste water wave way we weak wear weather web week weeks
weight well were west wet what when where which while white who whole why wide wife wild will winter wise wish with
within without wolf woman wood woods work world worth would wrong year years yet yellow young younger your zero klein
kleine kleiner grosse groß große großer lang lange langer kurz kurze breit schwarz weiss weiß braun jung alt alte neu
neue stark starke frei sommer stein berg ja nein und oder mit ohne der die das petit blanc blanche noir court fort bon
le la les un une et avec sans blanco negro grande gordo calvo bueno bravo bello rubio moreno leve sin con el los las y
o branco preto pequeno forte leite com sem bianco nero piccolo lungo corto basso alto bruno costa
"""
_FACILITY = """
hospital hospitals clinic clinics center centre university institute infirmary practice krankenhaus klinikum klinik
hopital hôpital clinique clinica clínica ospedale policlinico
"""

CLINICAL = frozenset(_CLINICAL.split())
"""Words whose capital letter says nothing: sections, labels and table heads begin with them."""
ORDINARY = CLINICAL | frozenset(_ORDINARY.split())
"""CLINICAL, and words whose capital letter in mid-sentence says that a name is meant."""
FACILITY = frozenset(_FACILITY.split())
"""Words that make a name of the ordinary words beside them: Heart Hospital, Chest Clinic."""
