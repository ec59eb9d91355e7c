"""Words of DICOM headers made comparable: capitals, one space between words, one word for all synonyms. Pure.

Sources of the synonyms, and nothing else is in the tables:
modality    retired terms and what they went into: DICOM PS3.3 C.7.3.1.1.1, notes
body part   meaning and defined term of the same region: DICOM PS3.16 Annex L, Table L-1
view        meaning and defined term: DICOM PS3.3 C.8.1.1 (CR Series), with the meanings of PS3.16 CID 4010
sex         meaning and defined term: DICOM PS3.3 C.7.1.1

A manufacturer is compared by the words with which it begins ("GE" is also "GE MEDICAL SYSTEMS"). Protocol and series
description are free text: they hold a wanted term if they hold all of its words.

    >>> same_term("body part", "Thorax")
    'CHEST'
    >>> holds_words("t1_mprage-SAG", "T1 mprage")
    True
"""

import re
from collections.abc import Mapping

BETWEEN_WORDS = re.compile(r"[\W_]+")

MODALITY = {
    **{"DS": "XA", "CF": "RF", "DF": "RF", "VF": "RF", "MA": "MR", "MS": "MR"},
    **{"EC": "US", "CD": "US", "DD": "US", "ST": "NM"},
}
BODY_PART = {
    **{"THORAX": "CHEST", "CERVICAL SPINE": "CSPINE", "THORACIC SPINE": "TSPINE", "LUMBAR SPINE": "LSPINE"},
    **{"LUMBO SACRAL SPINE": "LSSPINE", "LUMBOSACRAL SPINE": "LSSPINE", "THORACO LUMBAR SPINE": "TLSPINE"},
    **{"CERVICO THORACIC SPINE": "CTSPINE", "ABDOMEN AND PELVIS": "ABDOMENPELVIS", "HEAD AND NECK": "HEADNECK"},
    **{"CHEST AND ABDOMEN": "CHESTABDOMEN", "CHEST ABDOMEN AND PELVIS": "CHESTABDPELVIS"},
    **{"ACROMIOCLAVICULAR JOINT": "ACJOINT", "STERNOCLAVICULAR JOINT": "SCJOINT", "SACROILIAC JOINT": "SIJOINT"},
    **{"TEMPOROMANDIBULAR JOINT": "TMJ", "INTERNAL AUDITORY CANAL": "IAC", "ANKLE JOINT": "ANKLE"},
    **{"ELBOW JOINT": "ELBOW", "WRIST JOINT": "WRIST", "HIP JOINT": "HIP", "UPPER ARM": "ARM", "LOWER LEG": "LEG"},
    **{"NECK AND CHEST": "NECKCHEST", "NECK CHEST AND ABDOMEN": "NECKCHESTABDOMEN"},
    **{"NECK CHEST ABDOMEN AND PELVIS": "NECKCHESTABDPELV", "ENTIRE BODY": "WHOLEBODY", "SACRUM": "SSPINE"},
    **{"LARGE INTESTINE": "LARGEINTESTINE", "SMALL INTESTINE": "SMALLINTESTINE", "BILE DUCT": "BILEDUCT"},
    **{"JAW REGION": "JAW", "MANDIBLE": "JAW", "MASTOID BONE": "MASTOID", "OPTIC CANAL": "OPTICCANAL"},
    **{"PAROTID GLAND": "PAROTID", "SUBMANDIBULAR GLAND": "SUBMANDIBULAR", "SELLA TURCICA": "SELLA"},
}
VIEW = {
    **{"ANTERO POSTERIOR": "AP", "ANTEROPOSTERIOR": "AP", "POSTERO ANTERIOR": "PA", "POSTEROANTERIOR": "PA"},
    **{"ANTERIOR POSTERIOR": "AP", "POSTERIOR ANTERIOR": "PA", "LEFT LATERAL": "LL", "RIGHT LATERAL": "RL"},
    **{"LEFT LATERAL DECUBITUS": "LLD", "RIGHT LATERAL DECUBITUS": "RLD"},
    **{"LEFT LATERAL OBLIQUE": "LLO", "RIGHT LATERAL OBLIQUE": "RLO"},
}
SEX = {"FEMALE": "F", "MALE": "M", "OTHER": "O"}
SYNONYMS: Mapping[str, Mapping[str, str]] = {"modality": MODALITY, "body part": BODY_PART, "view": VIEW, "sex": SEX}


def same_term(kind: str, word: str) -> str:
    """Return the word that stands for a term and all that mean the same; `kind` is a key of `SYNONYMS`."""
    plain = " ".join(words_of(word))
    synonyms = SYNONYMS[kind]
    joined = plain.replace(" ", "")  # a defined term has no spaces, and hospitals write some
    defined = joined if joined in set(synonyms.values()) else plain
    return synonyms.get(plain, defined)


def terms_of(kind: str, word: str) -> tuple[str, ...]:
    """Return all terms that mean the same as a word, the one that stands for them first.

    >>> terms_of("modality", "ec")
    ('US', 'EC', 'CD', 'DD')
    """
    stands = same_term(kind, word)
    return (stands, *(synonym for synonym, meant in SYNONYMS[kind].items() if meant == stands))


def words_of(text: str) -> list[str]:
    """Return a text's words in capitals; what is no letter or digit stands between words."""
    return [word for word in BETWEEN_WORDS.split(text.upper()) if word]


def begins_with(text: str, wanted: str) -> bool:
    """Tell whether a text begins with the words of another."""
    words = words_of(wanted)
    return bool(words) and words_of(text)[: len(words)] == words


def holds_words(text: str, wanted: str) -> bool:
    """Tell whether a text holds all words of another, in any order."""
    words = set(words_of(wanted))
    return bool(words) and words <= set(words_of(text))
