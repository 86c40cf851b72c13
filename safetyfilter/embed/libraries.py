"""open_clip and torchvision, imported without torch's compiler: in less time and memory. Modules take them from here.

>>> open_clip.get_model_config("ViT-B-32")["embed_dim"]
512
"""

from safetyfilter.embed.compiler import deferred_compiler

with deferred_compiler():
    import open_clip as open_clip
    import torchvision as torchvision
