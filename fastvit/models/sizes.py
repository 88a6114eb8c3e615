"""How large every variant is, and how much it computes: counted once, as counting takes seconds and needs torch.

`tests/models/test_sizes.py` counts again.
"""

from typing import NamedTuple


class Size(NamedTuple):
    """Counts of a variant with its own head."""

    parameters: int  # unfused
    fused_parameters: int
    fused_multiply_adds: int  # of one image of the variant's own size


SIZES: dict[str, Size] = {
    "fastvit_t8": Size(4_026_232, 3_992_392, 685_160_448),
    "fastvit_t12": Size(7_553_704, 7_502_952, 1_390_944_256),
    "fastvit_s12": Size(9_473_576, 9_422_824, 1_793_597_440),
    "fastvit_sa12": Size(11_580_968, 11_539_432, 1_937_219_584),
    "fastvit_sa24": Size(21_554_216, 21_489_512, 3_762_069_504),
    "fastvit_sa36": Size(31_527_464, 31_439_592, 5_586_919_424),
    "fastvit_ma36": Size(44_068_004, 43_963_656, 7_814_930_432),
    "fastvit_mci0": Size(11_406_976, 11_348_544, 2_385_149_952),
    "fastvit_mci1": Size(21_541_632, 21_443_136, 4_658_266_112),
    "fastvit_mci2": Size(35_815_232, 35_678_032, 7_834_224_640),
    "fastvit_mci3": Size(125_235_648, 125_038_560, 14_812_004_352),
    "fastvit_mci4": Size(321_784_832, 321_513_856, 27_757_903_872),
    "fastvithd": Size(125_235_648, 125_038_560, 243_356_270_592),
}
