// What a start needs from the host: where pages and tags lie (4 KiB aligned) and how many images
// there are. The registers stand still while a run is under way: a write then is lost, so neither
// the addresses nor the batch that were checked can change under the walker. A batch that does not
// fit 16 bits becomes 0, which no start accepts.
module lk_run_regs (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        running_i,
  input  logic        we_i,
  input  logic [15:0] addr_i,        // byte offset of the register; others are ignored
  input  logic [31:0] wdata_i,
  output logic [63:0] pages_addr_o,
  output logic [63:0] tags_addr_o,
  output logic [63:0] spill_addr_o,
  output logic [15:0] batch_o
);
  import lk_pkg::*;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      pages_addr_o <= '0;
      tags_addr_o  <= '0;
      spill_addr_o <= '0;
      batch_o      <= '0;
    end else if (we_i && !running_i) begin  // SEC_CM: REGS.STABLE_IN_RUN
      unique case (addr_i)
        RegPagesAddrLo: pages_addr_o[31:0]  <= {wdata_i[31:12], 12'd0};
        RegPagesAddrHi: pages_addr_o[63:32] <= wdata_i;
        RegTagsAddrLo:  tags_addr_o[31:0]   <= {wdata_i[31:12], 12'd0};
        RegTagsAddrHi:  tags_addr_o[63:32]  <= wdata_i;
        RegSpillAddrLo: spill_addr_o[31:0]  <= {wdata_i[31:12], 12'd0};
        RegSpillAddrHi: spill_addr_o[63:32] <= wdata_i;
        RegBatch:       batch_o             <= (wdata_i[31:16] != '0) ? '0 : wdata_i[15:0];
        default: ;
      endcase
    end
  end
endmodule
