"""PVT-S, the baseline that the LIT paper takes apart (PVT: ICCV 2021, arXiv:2102.12122; LIT: tables 3 and 4).

PVT is LIT's skeleton with attention in every stage, absolute positions and uniform merging, so the model is `LIT` and
this file is the table. Official weights exist for `pvt_s_msa` (full attention instead of spatial reduction).
"""

from dataclasses import replace

from litevit.backbones import lit
from litevit.backbones.lit import LIT_TI, LITConfig

PVT_S = replace(LIT_TI, attention=(True, True, True, True), sr_ratios=(8, 4, 2, 1), merging="conv")
PVT_S_MSA = replace(PVT_S, sr_ratios=(1, 1, 1, 1))

VARIANTS: dict[str, LITConfig] = {
    "pvt_s": PVT_S,
    "pvt_s_dtm": replace(PVT_S, merging="deformable"),  # table 3
    "pvt_s_msa": PVT_S_MSA,
    # Table 4: attention removed from stages 1; 1-2; 1-3; 1-4.
    "pvt_s_msa_remove_1": replace(PVT_S_MSA, attention=(False, True, True, True)),
    "pvt_s_msa_remove_12": replace(PVT_S_MSA, attention=(False, False, True, True)),
    "pvt_s_msa_remove_123": replace(PVT_S_MSA, attention=(False, False, False, True)),
    # Without attention a class token sees no patch: the head reads the mean of all.
    "pvt_s_msa_remove_1234": replace(PVT_S_MSA, attention=(False, False, False, False), class_token=False),
}

FAMILY = lit.FAMILY._replace(variants=VARIANTS)
