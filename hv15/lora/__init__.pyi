from .apply import apply_lora as apply_lora
from .conversion import convert as convert
from .files import (
    convert_file as convert_file,
)
from .files import (
    kohya_metadata as kohya_metadata,
)
from .files import (
    read_lora as read_lora,
)
from .files import (
    save_lora as save_lora,
)
from .formats import detect_format as detect_format
from .merging import merge_lora as merge_lora
from .merging import merge_patch as merge_patch
from .network import LoRANetwork as LoRANetwork
