from plumbline.objectives.sft._batch_scheduled_sampling import batch_scheduled_sampling as batch_scheduled_sampling
from plumbline.objectives.sft._direct_coverage_optimization import (
    direct_coverage_optimization as direct_coverage_optimization,
)
from plumbline.objectives.sft._focal import focal as focal
from plumbline.objectives.sft._label_smoothing import label_smoothing as label_smoothing
from plumbline.objectives.sft._lopsided_loss import lopsided_loss as lopsided_loss
from plumbline.objectives.sft._loss_reweighting import loss_reweighting as loss_reweighting
from plumbline.objectives.sft._masked_thought import masked_thought as masked_thought
from plumbline.objectives.sft._nll import nll as nll
from plumbline.objectives.sft._one_token_rollout import one_token_rollout as one_token_rollout
from plumbline.objectives.sft._reference_answer_correction import (
    reference_answer_correction as reference_answer_correction,
)
from plumbline.objectives.sft._s3ft import s3ft as s3ft
