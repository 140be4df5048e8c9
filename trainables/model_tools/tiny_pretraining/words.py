"""Words that the small model learns: of bodies, scans and findings, and of everyday things."""

from __future__ import annotations

MODALITIES = ("x ray", "ct", "mri", "ultrasound", "mammography", "pet", "angiography")
PLANES = ("axial", "coronal", "sagittal", "frontal", "lateral", "oblique")
PAIRED = ("lung", "kidney", "knee", "hip", "shoulder", "ovary", "breast", "hand", "foot", "eye")
SINGLE = (
    *("brain", "heart", "liver", "spleen", "bladder", "pelvis", "abdomen", "chest", "head", "neck"),
    *("spine", "pancreas", "stomach", "skull", "aorta", "uterus", "prostate", "thyroid", "bowel"),
    *("lungs", "kidneys", "ribs", "colon", "gallbladder", "mediastinum", "thorax", "trachea"),
)
FINDINGS = (
    *("nodule", "mass", "cyst", "lesion", "tumor", "fracture", "effusion", "hemorrhage", "stone"),
    *("abscess", "edema", "infarct", "aneurysm", "calcification", "opacity", "metastasis", "clot"),
    *("pneumothorax", "pneumonia", "hernia", "ulcer", "scar", "swelling", "finding", "abnormality"),
)
SIZES = ("small", "medium", "large", "tiny", "huge")
TONES = ("bright", "dark", "dense", "pale")
SIDES = ("left", "right")
MODALITY_NAMES = ("modality", "kind of scan", "imaging technique", "examination", "type of image")
THINGS = ("apple", "chair", "dog", "cat", "horse", "cup", "book", "tree", "car", "house", "bird")
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "grey", "brown")
ROOMS = ("kitchen", "garden", "street", "school", "room", "park", "station", "field")

# Words that questions about images use; they enter the vocabulary and the repeating exercise.
OTHER = """
a about above absence absent acute after all along also am an and any anatomical anatomy anterior
appear appears apex appendix are area around artery arteries as at away back base be been before
behind below beneath beside best better between big biggest bilateral blood body bone bones bottom
bright brighter brightness bronchus by can cardiac cardiomegaly cavity cell center central
cerebellum cerebral change changes chronic clear clearly collapsed colour color compare compared
consistent contain contains contour contrast cortex count cover cross cut darker deep defect degree
density depict depicted detect detected diagnosis diameter diaphragm diffuse dilated direction
disease displaced displayed do does dominant done down during each edge eight either elsewhere end
enhancing enlarged even evidence evident exactly exam example extent external face fat feature few
field film finding findings first five fluid focal for form found four from front full gas gastric
give gland good great had half has have he her here hepatic high his hollow how identified identify
if image imaged images imaging in include included increased infection infiltrate inferior inside
intact intensity internal into is it its joint just kind large larger largest lateral least left
length less level lie lies ligament light like likely limb line lines little lobe lobes located
location look lower lumbar lymph main many margin mark marked material matter may mean medial median
medium middle midline more most much multiple muscle name near nerve next nine node nodes noise
noisy none normally not number object observed occur of off on one only opacities open or orbit
organ organs orientation other out outer outside over pair part parts patchy pathology patient
peripheral photo picture place plain plane pleural point portion position posterior present probe
process projection proximal pulmonary question radiograph rather reading recorded region regions
renal report results rib right ring rounded sac same say scan scans screen second section see seen
sequence series set seven shadow shape shaped sharp she should show showing shown shows side sides
sign signal signs sinus site six size skin slice slices smaller smallest soft solid some somewhere
space spot state still structure structures such superior surface surgical suspicious symmetric
symmetrical symmetry system taken tell ten than that the their them there thick thin thing this
thoracic those three through tissue to together top total trauma tube two type under unilateral
unremarkable up upper upright uses vein ventricle ventricles vertebra vertebrae vessel vessels view
viewed views visible visualized volume wall was water way we well were what when where whether which
white who whole whose why wide width will with within without would wrong you your abnormalities
cysts effusions fractures hemorrhages lesions masses nodules stones tumors scanned scanner sound
wave waves magnetic resonance tomography computed radiography device machine technique method
acquired acquisition made produced using used use body hemisphere quadrant dense healthy sick
diseased pathological sized equal alike answer asked correct true false zero
"""
