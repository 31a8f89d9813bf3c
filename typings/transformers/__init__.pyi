"""What opadpo takes from transformers, where it is defined.

The package's own `__init__` names everything in it: a fifth of the time of all type checking went into reading that.
"""

from transformers.cache_utils import DynamicCache as DynamicCache
from transformers.configuration_utils import PreTrainedConfig as PreTrainedConfig
from transformers.generation.configuration_utils import GenerationConfig as GenerationConfig
from transformers.masking_utils import AttentionMaskInterface as AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface as AttentionInterface
from transformers.modeling_utils import PreTrainedModel as PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING as CONFIG_MAPPING
from transformers.models.auto.configuration_auto import AutoConfig as AutoConfig
from transformers.models.auto.image_processing_auto import AutoImageProcessor as AutoImageProcessor
from transformers.models.auto.modeling_auto import AutoModelForImageTextToText as AutoModelForImageTextToText
from transformers.models.auto.processing_auto import AutoProcessor as AutoProcessor
from transformers.models.auto.tokenization_auto import AutoTokenizer as AutoTokenizer
from transformers.models.clip.configuration_clip import CLIPVisionConfig as CLIPVisionConfig
from transformers.models.gemma3.configuration_gemma3 import Gemma3Config as Gemma3Config
from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig as Gemma3TextConfig
from transformers.models.llama.configuration_llama import LlamaConfig as LlamaConfig
from transformers.models.llama.tokenization_llama import LlamaTokenizer as LlamaTokenizer
from transformers.models.llava.configuration_llava import LlavaConfig as LlavaConfig
from transformers.models.llava.image_processing_llava import LlavaImageProcessor as LlavaImageProcessor
from transformers.models.llava.modeling_llava import LlavaForConditionalGeneration as LlavaForConditionalGeneration
from transformers.models.llava.processing_llava import LlavaProcessor as LlavaProcessor
from transformers.models.llava_next.configuration_llava_next import LlavaNextConfig as LlavaNextConfig
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor as LlavaNextProcessor
from transformers.models.llava_onevision.configuration_llava_onevision import (
    LlavaOnevisionConfig as LlavaOnevisionConfig,
)
from transformers.models.llava_onevision.processing_llava_onevision import (
    LlavaOnevisionProcessor as LlavaOnevisionProcessor,
)
from transformers.models.mistral.configuration_mistral import MistralConfig as MistralConfig
from transformers.models.qwen2.configuration_qwen2 import Qwen2Config as Qwen2Config
from transformers.models.siglip.configuration_siglip import SiglipVisionConfig as SiglipVisionConfig
from transformers.optimization import get_scheduler as get_scheduler
from transformers.processing_utils import ProcessorMixin as ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase as PreTrainedTokenizerBase
from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast as PreTrainedTokenizerFast
from transformers.trainer import Trainer as Trainer
from transformers.trainer_callback import PrinterCallback as PrinterCallback
from transformers.trainer_callback import TrainerCallback as TrainerCallback
from transformers.trainer_callback import TrainerControl as TrainerControl
from transformers.trainer_callback import TrainerState as TrainerState
from transformers.training_args import TrainingArguments as TrainingArguments
from transformers.utils.quantization_config import BitsAndBytesConfig as BitsAndBytesConfig
