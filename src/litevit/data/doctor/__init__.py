"""Reads a data set before hours are spent on it, and names everything that training would trip over.

`examine(path)` takes every layout of `litevit.data.layouts` and returns a `Report`: counts, and findings with how often
and where. An error is what stops training or makes it learn the wrong thing; a warning is what training leaves out,
mends on reading, or what looks odd. `fix.mend` writes a copy without what can be mended mechanically, `page.write_page`
a page with pictures of the findings.
"""

from litevit.data.doctor.examine import examine as examine
from litevit.data.doctor.report import Finding as Finding
from litevit.data.doctor.report import Report as Report
