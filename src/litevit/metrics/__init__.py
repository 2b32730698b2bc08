"""Metrics: update / compute; the state of each is summed over processes."""

from litevit.metrics.panoptic import PanopticQuality, panoptic_quality
from litevit.metrics.segmentation import MeanIoU

__all__ = ["MeanIoU", "PanopticQuality", "panoptic_quality"]
