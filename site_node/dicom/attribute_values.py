"""What takes the place of a value: a dummy, a date moved by days, an age not over 90, words known to be safe.

Source: DICOM PS3.5 6.2 (value representations), PS3.15 E.3.6 (modified dates), E.3.5 (descriptors); for ages 45 CFR
164.514(b)(2)(i)(C): all ages over 89 are one category.
"""

import re
from collections.abc import Collection
from datetime import date, timedelta

DUMMY_TEXT = "ANONYMIZED"
DUMMIES: dict[str, object] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT"), DUMMY_TEXT),
    **dict.fromkeys(("DS", "IS"), "0"),
    **dict.fromkeys(("AT", "SL", "SS", "SV", "UL", "US", "UV", "US or SS", "US or OW", "US or SS or OW"), 0),
    **dict.fromkeys(("FL", "FD"), 0.0),
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "OB or OW", "UN"), bytes(8)),
    **{"AS": "000Y", "DA": "19000101", "DT": "19000101000000", "TM": "000000"},
    **{"PN": "Anonymized", "UR": "urn:anonymized"},
}
OLDEST_SAID_YEARS = 89
OVER_THAT = "090Y"
UNITS_IN_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}
MEASURE = re.compile(r"\d{1,3}(\.\d{1,2})?(MM|CM|S|SEC|MS|MIN|KV|MA|MHZ|T|D|H)")
TIME = re.compile(r"\d{2}:?(\d{2}:?(\d{2}(\.\d{1,6})?)?)?")
TIMEZONE = re.compile(r"[+-]\d{4}")
_VOCABULARY = """
    ABDOMEN ABDOMINAL ACROSS ADC ADRENAL ANGIO ANGIOGRAPHY ANKLE ANTERIOR AORTA AP APICAL ARM ARTERIAL ARTERY ASL
    AXIAL AX AXILLARY B0 B1000 B500 B800 BASELINE BILATERAL BLADDER BODY BOLD BONE BOWEL BRAIN BREAST CALF CARDIAC
    CAROTID CC CE CERVICAL CHEST CINE CLAVICLE COLON COLOR COLOUR CONTRAST COR CORONAL CORONARY CORTEX CRANIAL
    CRANIUM CT CTA CTP CUBE DCE DELAYED DERIVED DIFF DIFFUSION DISTAL DOPPLER DTI DUAL DWI DX ECG ECHO ELBOW ENERGY
    EP EPI EXAM EXPIRATION EXTREMITY FACE FAST FAT FEMUR FFE FIESTA FINGER FL FLAIR FLASH FLOW FOLLOWUP FOOT FOREARM
    FOV FRONTAL FRE FSE FSPGR FULL GAD GADOLINIUM GRADIENT GRE HAND HEAD HEART HELICAL HEPATIC HIGH HIP HR HUMERUS
    IAC INFERIOR INSPIRATION INVERSION IR ISO KIDNEY KNEE L LAT LATERAL LAVA LEFT LEG LIVER LL LOCALIZER LOCALISER
    LOW LOWER LUMBAR LUNG LV MAG MAGNITUDE MAMMOGRAM MANDIBLE MAP MASTOID MEDIAL MIDDLE MIP MLO MPR MPRAGE MR MRA
    MRCP MRI MRV MULTI NATIVE NECK NM NO NONCONTRAST OBL OBLIQUE OF ORBIT OVARY PA PANCREAS PARANASAL PARASAGITTAL
    PATELLA PD PELVIC PELVIS PERFUSION PET PHASE PITUITARY PLAIN PORTABLE PORTAL POST POSTERIOR PRE PRONE PROSTATE
    PROTON PROXIMAL PULMONARY R RADIUS RAPID RECON RECOVERY RECTUM REFORMAT RENAL RESOLUTION RIB RIBS RIGHT RL RV
    SAG SAGITTAL SAT SATURATION SCAN SCAPULA SCOUT SE SEQUENCE SERIES SHOULDER SINUS SKULL SLICE SOFT SPACE SPECT
    SPGR SPINE SPIN SPIRAL SPLEEN STANDARD STERNUM STIR SUPERIOR SUPINE SURVEY SWI T1 T1W T2 T2STAR T2W TEMPORAL
    TESTIS TFE THICK THIN THORACIC THORAX THYROID TIBIA TISSUE TO TOE TOF TOMO TRA TRANSVERSE TRANSVERSAL TRUFI TSE
    TURBO ULNA ULTRASOUND UPPER US UTERUS VASCULAR VEIN VENOUS VIBE VIEW VOLUME WATER WEIGHTED WHOLE WITH WITHOUT
    WRIST XR 2D 3D 4D
"""
WORDS = frozenset(_VOCABULARY.split())
"""What a description may say: sequences, planes, regions, phases."""
_TERMS = """
    ORIGINAL PRIMARY SECONDARY REFORMATTED RESAMPLED FILTERED OTHER NONE MIXED YES MONOCHROME1 MONOCHROME2 RGB YBR 422
    PALETTE ICT RCT SEG RTSTRUCT RTDOSE RTPLAN MG DR CR XA RF PT OT SC IVUS BMD PX IO LATERALITY UNPAIRED HFS HFP FFS
    FFP HFDL HFDR FFDL FFDR LIN LOG LOGARITHMIC LINEAR IDENTITY INVERSE PROJECTION SINGLE MULTIPLE BLOCK CAPTURE VALUE
    """
TERMS = WORDS | frozenset(_TERMS.split())
"""What a coded value may also say: the standard's own terms. A patient who is called like one of them is not named."""


def moved_date(text: str, days_back: int) -> str | None:
    """Return a DA or DT value moved back by whole days, with its time of day as it was; None if it is no date.

    A DT of less than a day's precision is taken from the first of its month or year, and keeps its precision.
    """
    digits = re.fullmatch(r"(\d{4})[.-]?(\d{2})?[.-]?(\d{2})?(.*)", text.strip())
    if digits is None:
        return None
    year, month, day, rest = digits.groups()
    if rest and (day is None or not re.fullmatch(r"\d{0,6}(\.\d{1,6})?([+-]\d{4})?", rest)):
        return None
    try:
        moved = date(int(year), int(month or 1), int(day or 1)) - timedelta(days=days_back)
    except (ValueError, OverflowError):
        return None
    return moved.isoformat().replace("-", "")[: len(year + (month or "") + (day or ""))] + rest


def capped_age(text: str) -> str | None:
    """Return an AS value, one over 89 years as 090Y; None if it is no age."""
    age = re.fullmatch(r"(\d{1,4})([DWMY])", text.strip().upper())
    if age is None:
        return None
    return OVER_THAT if int(age[1]) / UNITS_IN_YEAR[age[2]] >= OLDEST_SAID_YEARS + 1 else text.strip()


def safe_words(text: str, also: Collection[str] = ()) -> str:
    """Return the words of a description that are known to be safe, in their order; numbers only with a unit."""
    allowed = WORDS | {word.upper() for word in also}
    parts = re.split(r"[^0-9A-Za-z.]+", text)
    kept = [part for part in parts if part.upper() in allowed or MEASURE.fullmatch(part.upper())]
    return " ".join(kept)


def is_of_terms(text: str) -> bool:
    """Tell whether a coded value (CS) is made of the standard's own terms.

    >>> is_of_terms("BREAST"), is_of_terms("YBR_FULL_422"), is_of_terms("MUSTERMANN")
    (True, True, False)
    """
    return safe_words(text, TERMS) == " ".join(part for part in re.split(r"[^0-9A-Za-z.]+", text) if part)
