"""Mean and standard deviation of ImageNet's pixels (RGB in [0, 1]): what every published model was trained with."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
